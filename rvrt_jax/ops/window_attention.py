"""Attention inside windows: the readable form, and one kernel of cuDNN for NVIDIA GPUs.

The readable form writes logits and weights to memory, the kernel neither. It takes bfloat16 only
and heads of a multiple of 8 channels; its sums and its softmax are float32. What one window's
tokens must not see of each other goes into the kernel as channels of the queries and keys, since a
mask for each window would be as large as the logits.

Shapes: q, k, v [b, windows, tokens, heads, channels]; bias [heads, tokens, tokens], added to the
logits; sides, bool [windows, tokens, axes], or None: tokens that lie on different sides of any axis
do not see each other (`window.shift_sides`).
"""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Iterator
from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.ops.precision import precision_of
from rvrt_jax.ops.window import MASKED

_log = logging.getLogger(__name__)

KERNEL_CHANNELS = 8  # the kernel's channels of a head are a multiple of this


_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_only() -> Iterator[None]:
    """Has what is traced inside use the readable form: for programs that outlive this JAX."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def attend(q: Array, k: Array, v: Array, bias: Array, sides: Array | None) -> Array:
    """Attends inside windows; returns q's shape. Shapes as in the module's docstring."""
    tokens, channels = q.shape[2], q.shape[-1]
    fits = q.dtype == jnp.bfloat16 and channels % KERNEL_CHANNELS == 0 and tokens % 2 == 0
    if not fits or _plain.get():
        return attend_plain(q, k, v, bias, sides)
    axes = 0 if sides is None else sides.shape[-1]
    if not _kernel_works(tokens, q.shape[-2], channels + 2 * axes + -2 * axes % KERNEL_CHANNELS):
        return attend_plain(q, k, v, bias, sides)
    scale = channels**-0.5
    if sides is not None:
        q, k, v = _with_sides(q, k, v, sides, -MASKED / scale)
    flat = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    y = cast(Array, _attend_fused(*flat, bias.astype(q.dtype), scale))
    return y[..., :channels].reshape(*q.shape[:-1], channels)


def attend_plain(q: Array, k: Array, v: Array, bias: Array, sides: Array | None) -> Array:
    """The readable form, on every platform and in every type."""
    einsum = functools.partial(jnp.einsum, precision=precision_of(q.dtype))
    logits = einsum("bnqad,bnkad->bnaqk", q, k).astype(jnp.float32)
    logits = logits * q.shape[-1] ** -0.5 + bias.astype(jnp.float32)[None, None]
    if sides is not None:
        apart = (sides[:, :, None] != sides[:, None]).astype(jnp.float32).sum(axis=-1)
        logits = logits + jnp.where(apart > 0, MASKED, 0.0)[None, :, None]
    weights = jax.nn.softmax(logits).astype(q.dtype)
    return einsum("bnaqk,bnkad->bnqad", weights, v)


def _with_sides(
    q: Array, k: Array, v: Array, sides: Array, large: float
) -> tuple[Array, Array, Array]:
    """Adds channels whose products are 0 between tokens of one side, and `-large` otherwise."""
    here = sides.astype(q.dtype)
    there = 1 - here
    zeros = jnp.zeros((*here.shape[:-1], -2 * here.shape[-1] % KERNEL_CHANNELS), q.dtype)
    of_q = jnp.concatenate([-large * here, -large * there, zeros], axis=-1).astype(q.dtype)
    of_k = jnp.concatenate([there, here, zeros], axis=-1)

    def add(x: Array, more: Array) -> Array:
        more = jnp.broadcast_to(more[None, :, :, None], (*x.shape[:-1], more.shape[-1]))
        return jnp.concatenate([x, more], axis=-1)

    return add(q, of_q), add(k, of_k), add(v, jnp.zeros_like(of_k))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend_fused(q: Array, k: Array, v: Array, bias: Array, scale: float) -> Array:
    return _by_platform(_attend_cudnn, _attend_default, scale, q, k, v, bias)


def _forward(q: Array, k: Array, v: Array, bias: Array, scale: float):
    out = _by_platform(_attend_cudnn, _attend_default, scale, q, k, v, bias)
    return out, (q, k, v, bias)


def _backward(scale: float, residuals: tuple[Array, ...], d_out: Array):
    """Computes the forward pass again: so no platform keeps what only another needs."""

    def gradients(form, *arrays: Array, scale: float):
        *arguments, d_out = arrays
        return jax.vjp(functools.partial(form, scale=scale), *arguments)[1](d_out)

    cudnn, default = (functools.partial(gradients, f) for f in (_attend_cudnn, _attend_default))
    return _by_platform(cudnn, default, scale, *residuals, d_out)


_attend_fused.defvjp(_forward, _backward)


def _by_platform(cudnn, default, scale: float, *arrays: Array):
    cudnn, default = (functools.partial(f, scale=scale) for f in (cudnn, default))
    return jax.lax.platform_dependent(*arrays, cuda=cudnn, default=default)


def _attend_cudnn(q: Array, k: Array, v: Array, bias: Array, *, scale: float) -> Array:
    return jax.nn.dot_product_attention(
        q, k, v, bias=bias[None], scale=scale, implementation="cudnn"
    )


def _attend_default(q: Array, k: Array, v: Array, bias: Array, *, scale: float) -> Array:
    q = q * (scale * q.shape[-1] ** 0.5)
    return attend_plain(q[None], k[None], v[None], bias, None)[0]


@functools.cache
def _kernel_works(tokens: int, heads: int, channels: int) -> bool:
    """Returns whether JAX finds cuDNN and, where a GPU is here, the kernel compiles for it."""

    def loss(x: Array, bias: Array) -> Array:
        return _attend_cudnn(x, x, x, bias, scale=1.0).astype(jnp.float32).sum()

    sizes = (2, tokens, heads, channels), (heads, tokens, tokens)
    shapes = [jax.ShapeDtypeStruct(size, jnp.bfloat16) for size in sizes]
    try:
        jax.eval_shape(loss, *shapes)
    except RuntimeError:  # a JAX without cuDNN, which has no program for NVIDIA GPUs to make
        return False
    if jax.default_backend() != "gpu":
        return True
    try:
        jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    except RuntimeError as error:  # an old GPU, or AMD's
        reason = (str(error).splitlines() or [""])[0]
        _log.warning(
            "Attention inside windows uses the plain form: cuDNN's kernel does not compile (%s).",
            reason,
        )
        return False
    return True
