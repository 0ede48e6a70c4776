"""Sampling, warping and composing flows: the golden numbers, properties, and the plain version."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import goldens

from rvrt_jax.ops import sample

OPS = goldens.load("rvrt/ops")
SIZES = [(1, 1), (1, 7), (5, 1), (7, 9)]


def image(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((height, width, channels), np.float32)


def positions(height, width, seed=1, count=200):
    """Real positions (y, x) inside the frame, near its border, and up to 3 pixels outside."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-3, np.array([height, width]) + 2, (count, 2)).astype(np.float32)


@pytest.mark.parametrize("border", ["zeros", "border"])
def test_warp_golden(border):
    frames = np.moveaxis(OPS["warp/image"], 1, -1)
    out = jax.vmap(functools.partial(sample.warp, border=border))(frames, OPS["warp/flow_xy"])
    expected = np.moveaxis(OPS[f"warp/{border}"], 1, -1)
    # Positions of some ten pixels carry about 1e-6 of rounding, times differences of some units.
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_compose_golden():
    """Slot 0 of the first target frame looks two frames back, of the second target likewise."""
    first, middle, last = (np.moveaxis(OPS[f"compose/n{k}"][0], 0, -1) for k in ("01", "12", "23"))
    expected = np.moveaxis(OPS["compose/n1"][0], 1, -1)
    np.testing.assert_allclose(sample.compose_flows(middle, first), expected[0], atol=1e-5)
    np.testing.assert_allclose(sample.compose_flows(last, middle), expected[1], atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", ["zeros", "border"])
def test_zero_flow_is_identity(size, border):
    x = image(*size)
    out = sample.warp(x, jnp.zeros((*size, 2)), border=border)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, -2), (-3, 2), (9, 0)])
def test_integer_flow_is_a_shift(dx, dy):
    h, w = 7, 9
    x, flow = image(h, w), np.broadcast_to(np.float32([dx, dy]), (h, w, 2))
    y0, x0 = np.arange(h)[:, None] + dy, np.arange(w)[None] + dx
    clamped = x[np.clip(y0, 0, h - 1), np.clip(x0, 0, w - 1)]
    inside = (y0 >= 0) & (y0 < h) & (x0 >= 0) & (x0 < w)
    np.testing.assert_array_equal(sample.warp(x, flow, border="border"), clamped)
    np.testing.assert_array_equal(sample.warp(x, flow), clamped * inside[..., None])


def test_composed_integer_flows_add_up():
    """Away from the border; beyond it the second flow counts as zero."""
    first = np.broadcast_to(np.float32([2, -1]), (9, 8, 2))
    then = np.broadcast_to(np.float32([-1, 3]), (9, 8, 2))
    out = np.asarray(sample.compose_flows(first, then))
    np.testing.assert_array_equal(out[1:, :-2], np.broadcast_to([1.0, 2.0], (8, 6, 2)))
    np.testing.assert_array_equal(out[0], first[0])
    np.testing.assert_array_equal(out[:, -2:], first[:, -2:])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", ["zeros", "border"])
def test_fast_sampler_equals_the_plain_one(size, border):
    """Values, and gradients with respect to the image and to the positions."""
    x, coords = image(*size), positions(*size)
    cotangent = np.random.default_rng(2).standard_normal((len(coords), 3), np.float32)
    samplers = sample.bilinear_sample, sample.bilinear_sample_plain
    (fast, fast_vjp), (plain, plain_vjp) = (
        jax.vjp(functools.partial(f, border=border), x, coords) for f in samplers
    )
    np.testing.assert_allclose(fast, plain, atol=1e-5)
    for ours, theirs in zip(fast_vjp(cotangent), plain_vjp(cotangent), strict=True):
        # A one-pixel image gathers 200 samples in one sum.
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("y", "x"), [(-1.0, 1.5), (1.5, -1.0), (5.0, 1.5), (1.5, 6.0)])
def test_a_sample_on_the_edge_of_sight_has_no_gradient(y, x):
    """At exactly -1, or at the size, one-sided slopes differ: the samplers' rule says zero."""
    index, inside, fy, fx = sample.corners(jnp.array([y, x]), 5, 6)
    assert not inside and float(fy) == 0 and float(fx) == 0
    value = sample.pad_corners(image(5, 6))[index]
    np.testing.assert_array_equal(value, np.zeros(3))

    def total(coords):
        return sample.bilinear_sample(image(5, 6), coords).sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.array([y, x])), np.zeros(2))


def test_just_inside_there_is_a_gradient():
    def total(coords):
        return sample.bilinear_sample(jnp.ones((5, 6, 1)), coords).sum()

    np.testing.assert_allclose(jax.grad(total)(jnp.array([-0.75, 2.5])), [1, 0], atol=1e-6)


def test_positions_far_outside_read_zero_and_keep_gradients_finite():
    coords = jnp.array([[1e9, 0.0], [0.0, -1e9], [-3e38, 3e38]])
    value, vjp = jax.vjp(lambda c: sample.bilinear_sample(image(5, 6), c), coords)
    np.testing.assert_array_equal(value, np.zeros((3, 3)))
    np.testing.assert_array_equal(vjp(jnp.ones((3, 3)))[0], np.zeros((3, 2)))


def test_bfloat16_keeps_its_dtype_and_float32_positions():
    """At x = 300.25 a bfloat16 position would be 300 or 302."""
    ramp = jnp.broadcast_to((jnp.arange(400) % 4)[None, :, None], (3, 400, 1)).astype(jnp.bfloat16)
    out = sample.bilinear_sample(ramp, jnp.array([1.0, 300.25]))
    assert out.dtype == jnp.bfloat16 and float(out[0]) == 0.25
