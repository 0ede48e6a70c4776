"""Attention inside windows for CPUs, float32: products as the library there is quick at them.

It wants both factors by rows: what a product sums over is the last axis of the left factor and the
last but one of the right one, so that turning the small arrays first pays. The gradient does not
sum the weights' gradients times the weights: that is the sum of the output's times the output (Dao
et al., "FlashAttention", NeurIPS 2022, appendix B.2).
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.ops.sample import sum_last

_multiply = functools.partial(jnp.matmul, precision="float32")


@jax.custom_vjp
def attend(q: Array, k: Array, v: Array, bias: Array, mask: Array | None) -> Array:
    """Attends inside windows; returns q's shape.

    q, k, v, bias: float32, shapes as in `window_attention`. mask: added to the logits of all heads,
    [windows, tokens, tokens], without a gradient.
    """
    return _forward(q, k, v, bias, mask)[0]


def _forward(q: Array, k: Array, v: Array, bias: Array, mask: Array | None):
    logits = _multiply(_rows(q * q.shape[-1] ** -0.5), _columns(k)) + bias[None, None]
    if mask is not None:
        logits = logits + mask[None, :, None]
    weights = jnp.exp(logits - logits.max(axis=-1, keepdims=True))  # before the division
    total = weights.sum(axis=-1)
    out = jnp.moveaxis(_multiply(weights, _rows(v)) / total[..., None], 3, 2)
    return out, (q, k, v, weights, total, out)


def _backward(residuals: tuple[Array, ...], d_out: Array):
    q, k, v, weights, total, out = residuals
    scale = q.shape[-1] ** -0.5
    d_out = d_out / jnp.moveaxis(total, 2, 3)[..., None]
    mean_d_weight = jnp.moveaxis(sum_last(d_out * out), 2, 3)[..., None]
    d_logits = weights * (_multiply(_rows(d_out), _columns(v)) - mean_d_weight)
    d_q = jnp.moveaxis(_multiply(d_logits, _rows(k * scale)), 3, 2)
    d_k = jnp.moveaxis(_multiply(_columns(q * scale), d_logits), 4, 2)
    d_v = jnp.moveaxis(_multiply(_columns(d_out), weights), 4, 2)
    # A sum over windows is quicker as a product, too.
    of_windows = d_logits.reshape(-1, d_logits[0, 0].size)
    d_bias = _multiply(jnp.ones((1, len(of_windows))), of_windows).reshape(d_logits.shape[2:])
    return d_q, d_k, d_v, d_bias, None


attend.defvjp(_forward, _backward)


def _rows(x: Array) -> Array:
    """Writes [b, windows, tokens, heads, channels] as [b, windows, heads, tokens, channels]."""
    return jax.lax.optimization_barrier(jnp.moveaxis(x, 3, 2))


def _columns(x: Array) -> Array:
    """Writes [b, windows, tokens, heads, channels] as [b, windows, heads, channels, tokens]."""
    return jax.lax.optimization_barrier(jnp.moveaxis(x, 2, 4))
