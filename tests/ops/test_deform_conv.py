"""Modulated deformable convolution: golden numbers and gradients, a loop, and all versions."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from helpers import goldens

from rvrt_jax.ops.deform_conv import DEFORM_CONV, deform_conv_plain, deform_conv_streamed

ALL = pytest.mark.parametrize("convolve", DEFORM_CONV.values(), ids=DEFORM_CONV)
FAST = [convolve for name, convolve in DEFORM_CONV.items() if name != "plain"]
CASES = json.loads(str(goldens.load("edvr/op_dcn")["meta_json"]))["cases"]
# The others have a stride, a dilation or groups, which no network here has.
OURS = ("edvr", "faroff", "zero", "integer")


@functools.partial(jax.jit, static_argnames="convolve")
def vjp(convolve, cotangent, *arrays):
    """Returns the values and the four gradients of a batch, for which the kernel is one."""
    batched = jax.vmap(convolve, (0, 0, 0, None))
    value, pull = jax.vjp(batched, *arrays)
    return value, *pull(cotangent)


def golden(case):
    """Returns the arguments, the cotangent and the expected results of a case, in our layout."""
    arrays = {
        key.removeprefix(f"{case}/"): array
        for key, array in goldens.load("edvr/op_dcn").items()
        if key.startswith(f"{case}/")
    }
    options = CASES[case]
    parts = options["deformable_groups"]
    assert [options[k] for k in ("stride", "padding", "dilation", "groups")] == [1] * 4

    def ours(name):
        array = arrays[name]
        if "weight" in name:
            return rearrange(array, "o i y x -> y x i o")
        if "offset" in name:
            return rearrange(array, "b (g k d) y x -> b y x g k d", g=parts, d=2)
        if "mask" in name:
            return rearrange(array, "b (g k) y x -> b y x g k", g=parts)
        return rearrange(array, "b c y x -> b y x c")

    names = ("input", "offset", "mask", "weight")
    expected = [ours("output") - arrays["bias"], *(ours(f"grad_{name}") for name in names)]
    arguments = [ours(name) for name in names]
    return arguments, ours("grad_output"), expected


@pytest.mark.parametrize(
    ("case", "convolve"),
    [*((case, convolve) for case in OURS for convolve in FAST), ("zero", deform_conv_plain)],
)
def test_golden_values_and_gradients(case, convolve):
    arguments, cotangent, expected = golden(case)
    results = vjp(convolve, cotangent, *arguments)
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, other, atol=1e-5, rtol=1e-5)  # float64 against float32
    if case == "zero":  # the taps beyond the upper and left border lie at exactly -1
        unguarded = goldens.load("edvr/op_dcn")["zero/grad_offset_unguarded"]
        unguarded = rearrange(unguarded, "b (g k d) y x -> b y x g k d", g=2, d=2)
        assert np.abs(results[2] - unguarded).max() > 0.1


def arrays(h, w, c, out, parts, kernel):
    """Returns x, offsets, mask and kernel."""
    rng = np.random.default_rng(0)
    taps = kernel[0] * kernel[1]
    x = rng.standard_normal((h, w, c), np.float32)
    offsets = 2 * rng.standard_normal((h, w, parts, taps, 2), np.float32)
    mask = rng.random((h, w, parts, taps), np.float32)
    weights = rng.standard_normal((*kernel, c, out), np.float32)
    return x, offsets, mask, weights


ODD = [  # h, w, c, out, parts, kernel
    (5, 7, 6, 4, 3, (3, 3)),
    (4, 3, 4, 3, 1, (1, 3)),
    (1, 1, 2, 2, 2, (3, 3)),
    (7, 5, 12, 6, 2, (5, 1)),
]


def by_loops(x, offsets, mask, weights):
    """The definition, one sample at a time, in float64."""
    h, w, c = x.shape
    parts = offsets.shape[2]
    kh, kw, _, out = weights.shape
    result = np.zeros((h, w, out))
    for y, column, (k, (i, j)), channel in itertools.product(
        range(h), range(w), enumerate(np.ndindex(kh, kw)), range(c)
    ):
        part = channel // (c // parts)
        at_y = y - kh // 2 + i + float(offsets[y, column, part, k, 0])
        at_x = column - kw // 2 + j + float(offsets[y, column, part, k, 1])
        value = 0.0
        for row, col in itertools.product(
            (int(np.floor(at_y)), int(np.floor(at_y)) + 1),
            (int(np.floor(at_x)), int(np.floor(at_x)) + 1),
        ):
            if 0 <= row < h and 0 <= col < w:
                value += (1 - abs(at_y - row)) * (1 - abs(at_x - col)) * float(x[row, col, channel])
        result[y, column] += value * float(mask[y, column, part, k]) * weights[i, j, channel]
    return result


@ALL
@pytest.mark.parametrize("case", ODD)
def test_values_by_loops(case, convolve):
    given = arrays(*case)
    out = jax.jit(convolve)(*given)
    np.testing.assert_allclose(out, by_loops(*given), atol=2e-5)


def test_gradients_of_all_agree():
    *given, weights = arrays(*ODD[3])
    size = (1, *given[0].shape[:2], weights.shape[-1])
    cotangent = np.cos(np.arange(np.prod(size), dtype=np.float32)).reshape(size)
    given = [array[None] for array in given]
    plain, *others = (vjp(f, cotangent, *given, weights) for f in DEFORM_CONV.values())
    for results in others:
        for ours, other in zip(results, plain, strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-4)


def test_zero_offsets_and_full_masks_are_a_convolution():
    x, offsets, mask, weights = arrays(6, 5, 4, 3, 2, (3, 3))
    out = jax.jit(deform_conv_streamed)(x, 0 * offsets, 0 * mask + 1, weights)
    expected = jax.lax.conv_general_dilated(
        x[None], weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    np.testing.assert_allclose(out, expected, atol=1e-5)


@ALL
def test_bfloat16_is_close(convolve):
    x, offsets, mask, weights = arrays(6, 5, 4, 3, 2, (3, 3))
    half = jnp.bfloat16
    out = jax.jit(convolve)(x.astype(half), offsets, mask.astype(half), weights.astype(half))
    assert out.dtype == half
    # bfloat16 keeps 8 bits: 0.4 % of values up to 10, several times over.
    np.testing.assert_allclose(
        out.astype(np.float32), by_loops(x, offsets, mask, weights), atol=0.15
    )


def test_the_streamed_gradient_keeps_nothing_per_tap():
    """Temporary memory of values and gradients, against 25 sampled copies of the features."""
    x, offsets, mask, weights = arrays(30, 30, 32, 8, 1, (5, 5))

    def temporary(convolve):
        loss = lambda *given: (convolve(*given) ** 2).sum()  # noqa: E731
        program = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(x, offsets, mask, weights).compile()
        return program.memory_analysis().temp_size_in_bytes / x.nbytes

    assert temporary(deform_conv_streamed) < 25 < temporary(deform_conv_plain)
