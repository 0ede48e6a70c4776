"""Convolution: a sum over taps, and gradients against JAX's own of lax's convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax.ops import conv, platforms


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def by_taps(x, kernel, stride, groups):
    """[b, h, w, in] with [k, k, in / groups, out], zero padded by k // 2, in float64."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    h, w = x.shape[1:3]
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    parts = zip(np.split(padded, groups, -1), np.split(kernel, groups, -1), strict=True)
    outs = []
    for part, weights in parts:
        taps = [
            part[:, i : i + h : stride, j : j + w : stride] @ weights[i, j]
            for i in range(size)
            for j in range(size)
        ]
        outs.append(sum(taps))
    return np.concatenate(outs, -1)


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 1), (3, 8, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [(1, 1, 1), (3, 1, 1), (7, 1, 1), (3, 2, 1), (3, 1, 3)]
)
def test_values(shape, kernel, stride, groups):
    x, weights = arrays((*shape, 6), (kernel, kernel, 6 // groups, 9))
    out = conv.conv2d(x, weights, stride=stride, groups=groups)
    # Sums of up to 294 products of unit size.
    np.testing.assert_allclose(out, by_taps(x, weights, stride, groups), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 1), (1, 1, 6), (3, 8, 5)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (7, 1), (3, 2), (1, 3)])
def test_gradients(shape, kernel, stride):
    pad = kernel // 2

    def lax_conv(x, weights):
        return jax.lax.conv_general_dilated(
            x,
            weights,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x, weights = arrays((*shape, 3), (kernel, kernel, 3, 4))
    out, pull = jax.vjp(lax_conv, x, weights)
    (d_out,) = arrays(out.shape)
    ours = jax.vjp(functools.partial(conv.conv2d, stride=stride), x, weights)[1](d_out)
    for gradient, other in zip(ours, pull(d_out), strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-4)  # sums of up to 196 products


@pytest.mark.parametrize("band", [1, 18, 50])  # one, two and five rows of nine pixels
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (7, 1), (3, 2)])
def test_kernel_gradient_by_bands(monkeypatch, band, size, stride):
    """Bands that end with the image, or beyond it, against sums in float64."""
    monkeypatch.setattr(conv, "BAND", band)
    x, weights = arrays((2, 13, 9 * stride, 3), (size, size, 3, 4))
    (d_out,) = arrays(conv.conv2d(x, weights, stride=stride).shape)
    found = conv._kernel_gradient_by_bands(x, weights, d_out, stride=stride, precision="float32")
    for i, j, c in np.ndindex(size, size, 3):
        one = np.zeros((size, size, 3, 1))
        one[i, j, c] = 1
        seen = by_taps(x, one, stride, 1)[..., 0]
        np.testing.assert_allclose(found[i, j, c], np.einsum("bhw,bhwo->o", seen, d_out), atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 1), (3, 8, 5)])
@pytest.mark.parametrize("size", [3, 7])
def test_by_rows(shape, size):
    """The form of TPUs, here on whatever is there, against sums in float64."""
    x, weights = arrays((*shape, 6), (size, size, 6, 9))
    (d_out,) = arrays((*shape, 9))
    out = conv._convolve_by_rows(x, weights, precision="float32")
    np.testing.assert_allclose(out, by_taps(x, weights, 1, 1), atol=1e-4)
    d_x, d_weights = conv._gradients_by_rows(x, weights, d_out, precision="float32")
    back = by_taps(d_out, weights[::-1, ::-1].swapaxes(2, 3), 1, 1)
    np.testing.assert_allclose(d_x, back, atol=1e-4)
    for i, j in np.ndindex(size, size):
        one = np.zeros_like(weights)
        one[i, j] = np.eye(6, 9)  # the pixels of x, moved
        moved = by_taps(x, one, 1, 1)[..., :6]
        other = np.einsum("bhwi,bhwo->io", moved, d_out)
        np.testing.assert_allclose(d_weights[i, j], other, atol=1e-4)


def test_rows_of_bfloat16_add_up_in_float32():
    """As a convolution does: only the result is rounded."""
    x, weights = (a.astype(jnp.bfloat16) for a in arrays((1, 4, 5, 64), (7, 7, 64, 3)))
    out = conv._convolve_by_rows(x, weights, precision=None)
    exact = by_taps(np.asarray(x, np.float64), np.asarray(weights, np.float64), 1, 1)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=2**-8, atol=1e-4)


def test_rows_are_for_frames_that_are_not_too_large():
    kernel, small, large = (7, 7, 32, 64), (10, 64, 64, 32), (2, 720, 1280, 32)
    x, too_much, weights = (jax.ShapeDtypeStruct(s, np.float32) for s in (small, large, kernel))
    assert conv._rows_pay(x, weights, 1)
    assert not conv._rows_pay(too_much, weights, 1)
    assert not conv._rows_pay(x, weights, 2)
    assert not conv._rows_pay(x, weights.update(shape=(1, 1, 32, 64)), 1)
    for platform, loops in (("tpu", True), ("cuda", False), ("cpu", False)):
        with platforms.known_to_be(None):
            lowered = jax.jit(conv.conv2d).trace(x, weights).lower(lowering_platforms=(platform,))
        assert ("stablehlo.while" in lowered.as_text()) == loops, platform


def test_gradients_inside_jit_vmap_and_scan():
    """Where the custom gradient meets the transformations the networks use."""
    x, weights = arrays((3, 2, 5, 6, 4), (3, 3, 4, 4))

    def scanned(weights):
        def step(carry, frame):
            carry = conv.conv2d(carry + frame, weights)
            return carry, None

        return (jax.lax.scan(step, x[0], x)[0] ** 2).sum()

    def unrolled(weights):
        carry = x[0]
        for frame in x:
            carry = conv._convolve(carry + frame, weights, 1, None)
        return (carry**2).sum()

    ours, other = jax.jit(jax.grad(scanned))(weights), jax.grad(unrolled)(weights)
    np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())
    each = jax.vmap(jax.grad(lambda w, x: (conv.conv2d(x, w) ** 2).sum()), (None, 0))(weights, x)
    total = jax.grad(lambda w: (conv.conv2d(x.reshape(6, 5, 6, 4), w) ** 2).sum())(weights)
    np.testing.assert_allclose(each.sum(0), total, rtol=1e-4, atol=1e-3)
