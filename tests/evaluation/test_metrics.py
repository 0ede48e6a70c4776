"""PSNR, SSIM and luma against stored scores and against a loop over windows."""

from pathlib import Path

import numpy as np
import pytest

from rvrt_jax.evaluation import metrics

GOLDEN = np.load(Path(__file__).parents[1] / "golden/metrics/metrics.npz")


@pytest.mark.parametrize("border", [0, 4])
def test_scores_match_the_published_definition(border):
    """The stored scores are without a border and with one, which is cut off here."""
    inside = np.s_[border:-border, border:-border] if border else np.s_[:]
    scores = metrics.frame_scores(GOLDEN["restored_rgb"][inside], GOLDEN["gt_rgb"][inside])
    for name, value in scores.items():
        # The stored luma went through float32, which moves its PSNR by 1e-7 dB.
        assert value == pytest.approx(float(GOLDEN[f"{name}_border{border}"]), abs=1e-6), name


def test_luma():
    # Stored as float32, in 0 .. 255.
    np.testing.assert_allclose(metrics.rgb_to_y(GOLDEN["gt_rgb"]), GOLDEN["y_of_gt"], atol=2e-5)
    ends = metrics.rgb_to_y(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    np.testing.assert_allclose(ends, [[16, 235]])


def ssim_of_windows(a, b):
    axis = np.arange(11) - 5
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    kernel = (kernel / kernel.sum())[..., None]
    h, w, _ = a.shape
    values = []
    for y in range(h - 10):
        for x in range(w - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            p_mean, q_mean = (kernel * p).sum((0, 1)), (kernel * q).sum((0, 1))
            p_var = (kernel * (p - p_mean) ** 2).sum((0, 1))
            q_var = (kernel * (q - q_mean) ** 2).sum((0, 1))
            both = (kernel * (p - p_mean) * (q - q_mean)).sum((0, 1))
            c1, c2 = 6.5025, 58.5225
            values.append(
                (2 * p_mean * q_mean + c1)
                / (p_mean**2 + q_mean**2 + c1)
                * (2 * both + c2)
                / (p_var + q_var + c2)
            )
    return np.mean(values)


@pytest.mark.parametrize("shape", [(17, 23, 3), (11, 11, 1), (13, 30, 3)])
def test_ssim_on_odd_sizes_equals_a_loop_over_windows(shape):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape).astype(np.uint8)
    b = (a + rng.integers(-20, 21, shape)).clip(0, 255).astype(np.uint8)
    expected = ssim_of_windows(a.astype(float), b.astype(float))
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=1e-10)


def test_equal_images_are_perfect():
    image = np.random.default_rng(0).integers(0, 256, (15, 21, 3)).astype(np.uint8)
    assert metrics.psnr(image, image) == float("inf")
    assert metrics.ssim(image, image) == pytest.approx(1.0, abs=1e-12)


def test_psnr_of_one_level_is_known():
    a = np.full((5, 7, 3), 100, np.uint8)
    assert metrics.psnr(a, a + 1) == pytest.approx(20 * np.log10(255))


def test_what_cannot_be_scored_is_named():
    image = np.zeros((20, 12, 3), np.uint8)
    with pytest.raises(ValueError, match="equal shapes"):
        metrics.psnr(image, image[1:])
    with pytest.raises(ValueError, match="are 18x10"):
        metrics.ssim(image[1:-1, 1:-1], image[1:-1, 1:-1])
    with pytest.raises(ValueError, match="channels"):
        metrics.rgb_to_y(image[..., :1])
