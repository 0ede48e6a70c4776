"""Resizing: the golden numbers, jax.image where it has the same definition, and plain loops."""

import functools
import itertools

import jax
import numpy as np
import pytest
from helpers import goldens

from rvrt_jax.ops import resize

OPS = goldens.load("rvrt/ops")


def image(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_bicubic_quarter_golden():
    frames = np.moveaxis(OPS["bicubic_quarter/input"], 1, -1)
    expected = np.moveaxis(OPS["bicubic_quarter/output"], 1, -1)
    np.testing.assert_allclose(resize.bicubic_shrink(frames[0], 4), expected[0], atol=1e-6)


def test_bilinear_x4_golden():
    video = np.moveaxis(OPS["bilinear_x4/input"], 2, -1)[0]
    expected = np.moveaxis(OPS["bilinear_x4/output"], 2, -1)[0]
    enlarge = functools.partial(resize.resize_bilinear, size=expected.shape[1:3])
    np.testing.assert_allclose(jax.vmap(enlarge)(video), expected, atol=1e-6)


@pytest.mark.parametrize("factor, size", [(4, (12, 20)), (2, (10, 6)), (2, (2, 4))])
def test_bicubic_shrink_is_the_cubic_kernel(factor, size):
    """Keys' kernel with a = -0.75 at distances 1.5, 0.5, 0.5 and 1.5 from the half-pixel centre."""
    a, x = -0.75, image(*size, 2)
    near = (a + 2) * 0.5**3 - (a + 3) * 0.5**2 + 1
    far = a * 1.5**3 - 5 * a * 1.5**2 + 8 * a * 1.5 - 4 * a
    weights = [far, near, near, far]
    expected = np.zeros((size[0] // factor, size[1] // factor, 2))
    for y, x_, i, j in itertools.product(*map(range, expected.shape[:2]), range(4), range(4)):
        row, column = (factor * p + factor // 2 - 2 + k for p, k in ((y, i), (x_, j)))
        inside = min(max(row, 0), size[0] - 1), min(max(column, 0), size[1] - 1)
        expected[y, x_] += weights[i] * weights[j] * x[inside]
    np.testing.assert_allclose(resize.bicubic_shrink(x, factor), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 13), (20, 28), (7, 4), (3, 36)])
@pytest.mark.parametrize("old", [(1, 1), (5, 7), (1, 9)])
def test_half_pixel_bilinear_equals_jax_image(old, size):
    x = image(*old, 2)
    expected = jax.image.resize(x, (*size, 2), "linear", antialias=False)
    np.testing.assert_allclose(resize.resize_bilinear(x, size), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (9, 13), (10, 3)])
def test_aligned_corners_bilinear_equals_interpolation_of_the_rows(size):
    x = image(5, 7, 1)
    rows, columns = (
        np.linspace(0, n - 1, m) if m > 1 else np.zeros(1)
        for n, m in zip((5, 7), size, strict=True)
    )
    tall = np.stack([np.interp(rows, range(5), column) for column in x[..., 0].T], axis=1)
    expected = np.stack([np.interp(columns, range(7), row) for row in tall])
    out = resize.resize_bilinear(x, size, align_corners=True)
    np.testing.assert_allclose(out[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("old", [(1, 1), (2, 1), (5, 7), (16, 9)])
@pytest.mark.parametrize(
    ("factor", "align_corners"), [(2, False), (3, False), (4, False), (2, True)]
)
def test_whole_factors_equal_the_matrix_product(old, factor, align_corners):
    """In float64, with NumPy; the gradient is the same matrices' transpose."""
    x, size = image(*old, 3), (factor * old[0], factor * old[1])
    rows, columns = (
        np.stack([_linear_row(n, m, i, align_corners) for i in range(m)])
        for n, m in zip(old, size, strict=True)
    )
    enlarge = functools.partial(resize.resize_bilinear, size=size, align_corners=align_corners)
    out, pull = jax.vjp(jax.jit(enlarge), x)
    expected = np.einsum("ph,qw,hwc->pqc", rows, columns, x.astype(np.float64))
    np.testing.assert_allclose(out, expected, atol=1e-6)
    back = image(*size, 3)
    (gradient,) = pull(back)
    expected = np.einsum("ph,qw,pqc->hwc", rows, columns, back.astype(np.float64))
    np.testing.assert_allclose(gradient, expected, atol=1e-5)  # sums of up to 64 numbers


def _linear_row(old: int, new: int, index: int, align_corners: bool) -> np.ndarray:
    """Returns what new pixel `index` takes of each old one, from the definition."""
    if align_corners:
        place = index * (old - 1) / (new - 1) if new > 1 else 0.0
    else:
        place = (index + 0.5) * old / new - 0.5
    return np.array([np.interp(place, range(old), np.eye(old)[k]) for k in range(old)])


def test_the_same_size_is_the_same_image():
    x = image(5, 7, 3)
    np.testing.assert_array_equal(resize.resize_bilinear(x, (5, 7)), x)


def test_average_pool():
    x = image(6, 10, 2)
    expected = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
    np.testing.assert_allclose(resize.average_pool_2x2(x), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle(factor):
    f, x = factor, image(2, 3, 5, 4 * factor**2)
    out = np.asarray(resize.pixel_shuffle(x, f))
    assert out.shape == (2, 3 * f, 5 * f, 4)
    for c in range(4):
        for dy in range(f):
            for dx in range(f):
                np.testing.assert_array_equal(
                    out[:, dy::f, dx::f, c], x[..., f * f * c + f * dy + dx]
                )
