"""Degradations against stored MATLAB-style resizes and against loops over pixels."""

from pathlib import Path

import numpy as np
import pytest

from rvrt_jax.data import degrade

GOLDEN = np.load(Path(__file__).parents[1] / "golden/metrics/metrics.npz")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_imresize_matches_stored_results(dtype):
    image = GOLDEN["gt_rgb"].astype(dtype) / dtype(255)
    # Stored as float32 of values near 1.
    small = degrade.imresize(image, 1 / 4)
    np.testing.assert_allclose(small, GOLDEN["matlab_bicubic_quarter"], atol=5e-7)
    large = degrade.imresize(image[:24, :32], 4)
    np.testing.assert_allclose(large, GOLDEN["matlab_bicubic_x4"], atol=5e-7)
    assert small.dtype == large.dtype == dtype


def test_imresize_rounds_uint8():
    small = degrade.imresize(GOLDEN["gt_rgb"], 1 / 4)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, np.rint(GOLDEN["matlab_bicubic_quarter"] * 255))


def cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def mirrored(row, i):
    while not 0 <= i < len(row):
        i = -1 - i if i < 0 else 2 * len(row) - 1 - i
    return row[i]


def resize_row(row, scale):
    stretch = max(1, 1 / scale)
    result = []
    for o in range(int(np.ceil(len(row) * scale))):
        centre = (o + 0.5) / scale - 0.5
        near = range(int(centre - 3 * stretch) - 3, int(centre + 3 * stretch) + 4)
        weights = [cubic((i - centre) / stretch) for i in near]
        values = [w * mirrored(row, i) for w, i in zip(weights, near, strict=True)]
        result.append(sum(values) / sum(weights))
    return result


@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 0.7, 2, 2.5])
def test_imresize_of_odd_sizes_equals_a_loop(scale):
    image = np.random.default_rng(0).random((7, 13, 2))
    rows = np.apply_along_axis(resize_row, 0, image, scale)
    expected = np.apply_along_axis(resize_row, 1, rows, scale)
    np.testing.assert_allclose(degrade.imresize(image, scale), expected, atol=1e-12)


def test_blur_down_equals_a_loop():
    clip = np.random.default_rng(0).random((2, 12, 20, 3))
    offsets = np.arange(-4, 8)  # of a 12-tap window whose centre is 1.5 pixels further
    kernel = np.exp(-((offsets - 1.5) ** 2) / (2 * 1.6**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    expected = np.zeros((2, 3, 5, 3))
    for y in range(3):
        for x in range(5):
            for i, dy in enumerate(offsets):
                for j, dx in enumerate(offsets):
                    row, column = np.clip(4 * y + dy, 0, 11), np.clip(4 * x + dx, 0, 19)
                    expected[:, y, x] += kernel[i, j] * clip[:, row, column]
    np.testing.assert_allclose(degrade.blur_down(clip), expected, atol=1e-12)


@pytest.mark.parametrize("name", sorted(degrade.DEGRADATIONS))
def test_degradations_commute_with_flips_and_transposition(name):
    down = degrade.DEGRADATIONS[name]
    clip = np.random.default_rng(0).random((2, 16, 24, 3))
    small = down(clip, 4)
    np.testing.assert_allclose(down(clip[:, ::-1], 4), small[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(down(clip[:, :, ::-1], 4), small[:, :, ::-1], atol=1e-12)
    np.testing.assert_allclose(down(clip.swapaxes(1, 2), 4), small.swapaxes(1, 2), atol=1e-12)


@pytest.mark.parametrize("name", sorted(degrade.DEGRADATIONS))
def test_degradations_keep_a_flat_clip(name):
    flat = np.full((1, 8, 12, 3), 77, np.uint8)
    np.testing.assert_array_equal(degrade.DEGRADATIONS[name](flat, 4), flat[:, :2, :3])


def test_sizes_must_divide():
    with pytest.raises(ValueError, match="10x8"):
        degrade.bicubic_down(np.zeros((1, 10, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="for 4 only"):
        degrade.blur_down(np.zeros((1, 8, 8, 3), np.uint8), 2)
    assert degrade.mod_crop(np.zeros((1, 10, 13, 3)), 4).shape == (1, 8, 12, 3)


def test_noise_has_its_sigma_and_is_not_clipped():
    clip = np.zeros((4, 64, 64, 3), np.float32)
    noisy = degrade.add_noise(clip, 25.0, np.random.default_rng(0))
    # 49152 samples: the standard error of the estimate is 0.3 %.
    assert noisy.std() == pytest.approx(25 / 255, rel=0.02)
    assert noisy.min() < 0
    np.testing.assert_array_equal(degrade.add_noise(clip, 0, np.random.default_rng(0)), clip)
    with pytest.raises(ValueError, match="sigma"):
        degrade.add_noise(clip, -1, np.random.default_rng(0))
