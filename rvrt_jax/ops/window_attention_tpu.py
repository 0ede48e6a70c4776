"""Attention inside windows as one kernel for TPUs, forward and backward: no logits in memory.

A step of the kernel takes one window, whose logits and weights stay on the chip. Heads are not cut
out of the channels: a product over all channels, where one factor has zeros for the other heads,
takes no longer, since a TPU's matrix unit is 128 wide and two heads would not fill it either. The
formulas are those of `window_attention.attend_plain`; backward, the weights are computed again.

Shapes: q, k, v bfloat16 [windows, tokens, heads * channels]; bias [heads, tokens, tokens]; sides
int32 [n, tokens], whose row w mod n has one number for each set of sides that tokens of window w
lie on, or None.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from rvrt_jax.ops.window import MASKED


@functools.partial(jax.jit, static_argnames="interpret")
def attend(
    q: Array, k: Array, v: Array, bias: Array, sides: Array | None, *, interpret: bool = False
) -> Array:
    """Attends inside windows; returns q's shape and type. interpret: run on a CPU, for tests."""
    return _call(_forward, (q, k, v), bias, sides, [q], [], interpret)[0]


@functools.partial(jax.jit, static_argnames="interpret")
def gradients(
    q: Array,
    k: Array,
    v: Array,
    bias: Array,
    sides: Array | None,
    d_out: Array,
    *,
    interpret: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """Returns the gradients of q, k, v and bias, for those of the result."""
    total = jax.ShapeDtypeStruct(bias.shape, jnp.float32)
    found = _call(_backward, (q, k, v, d_out), bias, sides, [q, k, v], [total], interpret)
    return *found[:3], found[3].astype(bias.dtype)


def _call(
    kernel: Callable[..., None],
    arrays: tuple[Array, ...],
    bias: Array,
    sides: Array | None,
    results: list[Any],
    totals: list[Any],
    interpret: bool,
) -> Any:
    """Runs a kernel, window after window. results, totals: like what it returns, of which `totals`
    are of all windows."""
    windows, tokens, width = arrays[0].shape
    window = pl.BlockSpec((1, tokens, width), lambda w: (w, 0, 0))
    whole = pl.BlockSpec(bias.shape, lambda w: (0, 0, 0))
    fixed, specs = [bias], [whole]
    if sides is not None:
        n = len(sides)
        fixed += [sides[:, :, None], sides[:, None, :]]
        specs += [
            pl.BlockSpec((1, tokens, 1), lambda w: (w % n, 0, 0)),
            pl.BlockSpec((1, 1, tokens), lambda w: (w % n, 0, 0)),
        ]
    return pl.pallas_call(
        functools.partial(kernel, masked=sides is not None),
        grid=(windows,),
        in_specs=[*specs, *[window] * len(arrays)],
        out_specs=[*[window] * len(results), *[whole] * len(totals)],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results + totals],
        interpret=interpret,
    )(*fixed, *arrays)


def _forward(*refs: Any, masked: bool) -> None:
    bias, apart, (q, k, v, out) = _given(refs, masked)
    q, k, v = q[0], k[0], v[0]
    total, scale = jnp.zeros(q.shape, jnp.float32), _scale(q, bias)
    for head, own in enumerate(_heads(q, bias)):
        weights = _weights(own(q), k, bias[head], apart, scale)
        total += _product("qk,kc->qc", weights.astype(v.dtype), own(v))
    out[0] = total.astype(out.dtype)


def _backward(*refs: Any, masked: bool) -> None:
    bias, apart, (q, k, v, d_out, d_q, d_k, d_v, d_bias) = _given(refs, masked)
    q, k, v, d_out = q[0], k[0], v[0], d_out[0]

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        d_bias[...] = jnp.zeros(d_bias.shape, d_bias.dtype)

    of_q, of_k, of_v = (jnp.zeros(q.shape, jnp.float32) for _ in "qkv")
    scale = _scale(q, bias)
    for head, own in enumerate(_heads(q, bias)):
        weights = _weights(own(q), k, bias[head], apart, scale)
        d_weights = _product("qc,kc->qk", own(d_out), v)
        d_logits = weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
        d_bias[head] += d_logits
        d_logits = d_logits.astype(q.dtype)
        of_q += _product("qk,kc->qc", d_logits, own(k))
        of_k += _product("qk,qc->kc", d_logits, own(q))
        of_v += _product("qk,qc->kc", weights.astype(q.dtype), own(d_out))
    for ref, total in ((d_q, scale * of_q), (d_k, scale * of_k), (d_v, of_v)):
        ref[0] = total.astype(ref.dtype)


def _given(refs: tuple[Any, ...], masked: bool) -> tuple[Any, Array | None, tuple[Any, ...]]:
    """Returns the bias, which tokens do not see each other, and the windows' arrays."""
    bias, *rest = refs
    if not masked:
        return bias, None, tuple(rest)
    column, row, *rest = rest
    return bias, column[0] != row[0], tuple(rest)


def _scale(q: Array, bias: Any) -> float:
    return (q.shape[-1] // bias.shape[0]) ** -0.5


def _heads(q: Array, bias: Any) -> Iterator[Callable[[Array], Array]]:
    """Yields functions that make zeros of all but a head's channels."""
    heads = bias.shape[0]
    channels = q.shape[-1] // heads
    of_channel = jax.lax.div(jax.lax.broadcasted_iota(jnp.int32, q.shape, 1), channels)
    for head in range(heads):
        yield _only(of_channel == head)


def _only(own: Array) -> Callable[[Array], Array]:
    return lambda x: jnp.where(own, x, jnp.zeros_like(x))


def _weights(q: Array, k: Array, bias: Array, apart: Array | None, scale: float) -> Array:
    """Returns one head's weights, float32 [tokens, tokens]."""
    logits = scale * _product("qc,kc->qk", q, k) + bias.astype(jnp.float32)
    if apart is not None:
        logits += jnp.where(apart, MASKED, 0.0)
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _product(formula: str, x: Array, y: Array) -> Array:
    """Multiplies bfloat16 numbers, summed in float32, whatever JAX's default precision is."""
    exact = jax.lax.Precision.DEFAULT
    return jnp.einsum(formula, x, y, precision=exact, preferred_element_type=jnp.float32)
