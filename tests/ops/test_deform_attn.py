"""Guided deformable attention: golden numbers and gradients, a plain loop, all versions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from helpers import goldens

from rvrt_jax.ops.deform_attn import (
    ATTENTION,
    deform_attn_in_one,
    deform_attn_plain,
    deform_attn_streamed,
    tap_positions,
)

ALL = pytest.mark.parametrize("attend", ATTENTION.values(), ids=ATTENTION)
FAST = pytest.mark.parametrize("attend", [deform_attn_streamed, deform_attn_in_one])
CASES = [  # n, height, width, channels, groups, heads, window
    (2, 5, 7, 8, 4, 4, (3, 3)),
    (1, 5, 7, 8, 2, 4, (3, 3)),
    (3, 4, 3, 12, 6, 2, (1, 3)),  # groups narrower than heads
    (2, 3, 5, 12, 2, 6, (3, 1)),  # groups wider than heads
    (2, 4, 3, 6, 3, 2, (3, 3)),  # the middle group holds keys and values
    (1, 3, 4, 6, 1, 3, (1, 1)),  # one group for all
    (2, 3, 3, 18, 6, 9, (1, 3)),  # heads and groups that share no channels evenly
    (1, 1, 1, 4, 4, 2, (3, 3)),
]


def arrays(n, h, w, c, groups, heads, window, *, seed=0, reach=3.0):
    """Returns (q, kv, offsets, cotangent); offsets lead up to some pixels beyond the frame."""
    rng = np.random.default_rng(seed)
    taps = window[0] * window[1]
    shapes = (n, h, w, c), (n, h, w, 2 * c), (n, h, w, n, groups, taps, 2), (n, h, w, c)
    q, kv, offsets, cotangent = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return q, kv, reach * offsets, cotangent


def bilinear(image, y, x):
    """Samples [h, w, c] at one position, zero outside."""
    h, w, c = image.shape
    y0, x0 = int(np.floor(y)), int(np.floor(x))
    value = np.zeros(c)
    for i, j in itertools.product((y0, y0 + 1), (x0, x0 + 1)):
        if 0 <= i < h and 0 <= j < w:
            value += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return value


def by_loops(q, kv, offsets, *, heads, window):
    """The definition, one pixel, sample and group at a time, in float64."""
    n, h, w, c = q.shape
    q, kv, offsets = (array.astype(np.float64) for array in (q, kv, offsets))
    groups, width, head = offsets.shape[4], 2 * c // offsets.shape[4], c // heads
    taps = list(itertools.product(*(np.arange(size) - size // 2 for size in window)))
    out = np.zeros(q.shape)
    for i, y, x in itertools.product(range(n), range(h), range(w)):
        samples = []
        for s, (k, tap) in itertools.product(range(n), enumerate(taps)):
            places = np.add((y, x), tap) + offsets[i, y, x, s, :, k]
            channels = [slice(g * width, (g + 1) * width) for g in range(groups)]
            frame = kv[(s + i) % n]
            samples.append(
                np.concatenate(
                    [bilinear(frame[..., channels[g]], *places[g]) for g in range(groups)]
                )
            )
        keys, values = np.split(np.stack(samples), 2, axis=1)
        for a in range(heads):
            part = slice(a * head, (a + 1) * head)
            logits = keys[:, part] @ q[i, y, x, part] / np.sqrt(head)
            weights = np.exp(logits - logits.max())
            out[i, y, x, part] = weights / weights.sum() @ values[:, part]
    return out


def vjp(attend, q, kv, offsets, cotangent, **options):
    """Returns the values and the three gradients, compiled as one program."""

    @jax.jit
    def run(q, kv, offsets):
        value, pull = jax.vjp(functools.partial(attend, **options), q, kv, offsets)
        return value, *pull(cotangent)

    return run(q, kv, offsets)


@ALL
def test_golden_values_and_gradients(attend):
    golden = {
        key.split("/")[1]: array
        for key, array in goldens.load("rvrt/ops").items()
        if key.startswith("deform_attn/")
    }

    def frames(name):
        return rearrange(golden[name], "n one c h w -> (n one) h w c")

    def displacements(name):
        return rearrange(golden[name], "n (s g k y) h w -> n h w s g k y", s=2, g=4, y=2)

    q, kv, offsets = frames("q"), frames("kv"), displacements("offset")
    cotangent = rearrange(golden["cotangent"], "n c h w -> n h w c")
    results = vjp(attend, q, kv, offsets, cotangent, heads=4, window=(3, 3))
    expected = [rearrange(golden["output"], "n c h w -> n h w c"), frames("grad_q")]
    expected += [frames("grad_kv"), displacements("grad_offset")]
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, other, atol=1e-5)  # float64 against float32


@ALL
@pytest.mark.parametrize("case", CASES)
def test_values_by_loops(case, attend):
    q, kv, offsets, _ = arrays(*case)
    options = {"heads": case[5], "window": case[6]}
    out = attend(q, kv, offsets, **options)
    assert out.shape == q.shape and out.dtype == q.dtype
    np.testing.assert_allclose(out, by_loops(q, kv, offsets, **options), atol=1e-5)


@FAST
@pytest.mark.parametrize("case", CASES[2:7])  # the golden test has one like the first two
def test_gradients_agree_with_the_definition(case, attend):
    options = {"heads": case[5], "window": case[6]}
    plain, fast = (vjp(f, *arrays(*case), **options) for f in (deform_attn_plain, attend))
    for ours, other in zip(fast, plain, strict=True):
        # Offsets are continuous here, so no sample falls on the one place where rules differ.
        np.testing.assert_allclose(ours, other, atol=1e-4)


@FAST
def test_gradients_are_those_of_small_steps(attend):
    """Directional derivatives in all three arguments, in the values' own float32."""
    q, kv, offsets, cotangent = arrays(2, 3, 4, 8, 4, 2, (1, 3), reach=0.4)
    options = {"heads": 2, "window": (1, 3)}
    _, *gradients = vjp(attend, q, kv, offsets, cotangent, **options)
    for place, gradient in enumerate(gradients[:2]):
        direction = np.random.default_rng(place).standard_normal(gradient.shape)
        step = 1e-4
        ends = []
        for sign in (1, -1):
            moved = [array.astype(np.float64) for array in (q, kv, offsets)]
            moved[place] = moved[place] + sign * step * direction
            ends.append((by_loops(*moved, **options) * cotangent).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3)


@ALL
def test_bfloat16_is_close(attend):
    case = (2, 5, 7, 16, 4, 4, (3, 3))
    q, kv, offsets, _ = arrays(*case)
    rounded = (jnp.asarray(array, jnp.bfloat16) for array in (q, kv))
    out = attend(*rounded, offsets, heads=4, window=(3, 3))
    assert out.dtype == jnp.bfloat16
    exact = by_loops(q, kv, offsets, heads=4, window=(3, 3))
    # bfloat16 keeps 8 bits: 0.4 % of values up to 3, several times over.
    np.testing.assert_allclose(out.astype(np.float32), exact, atol=0.06)


@FAST
def test_a_sample_at_exactly_minus_one_has_no_offset_gradient(attend):
    """All of a pixel's samples lie at y = -1: they read zeros, and none asks to be moved."""
    q, kv, _, cotangent = arrays(1, 4, 5, 4, 2, 2, (1, 1))
    offsets = np.zeros((1, 4, 5, 1, 2, 1, 2), np.float32)
    offsets[0, ..., 0] = -1 - np.arange(4, dtype=np.float32)[:, None, None, None, None]
    options = {"heads": 2, "window": (1, 1)}
    out, d_q, d_kv, d_offsets = vjp(attend, q, kv, offsets, cotangent, **options)
    for array in (out, d_q, d_kv, d_offsets):
        np.testing.assert_array_equal(array, np.zeros(array.shape))


@ALL
def test_zero_offsets_and_one_tap_read_the_pixel_itself(attend):
    """One sample per query: the weight is 1 and the output is the value there."""
    q, kv, offsets, _ = arrays(1, 5, 3, 6, 2, 3, (1, 1))
    out = attend(q, kv, 0 * offsets, heads=3, window=(1, 1))
    np.testing.assert_allclose(out, kv[..., 6:], atol=1e-6)


@ALL
def test_logits_of_hundreds_do_not_overflow(attend):
    q, kv, offsets, _ = arrays(2, 3, 3, 4, 2, 2, (3, 3))
    out = attend(300 * q, kv, offsets, heads=2, window=(3, 3))
    exact = by_loops(300 * q, kv, offsets, heads=2, window=(3, 3))
    np.testing.assert_allclose(out, exact, atol=1e-3)  # logits of 1e3 are rounded to 1e-4


def test_taps_are_row_major():
    np.testing.assert_array_equal(tap_positions((3, 1)), [[-1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(tap_positions((3, 3))[:4], [[-1, -1], [-1, 0], [-1, 1], [0, -1]])
