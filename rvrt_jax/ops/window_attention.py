"""Attention inside windows: the readable form, one for CPUs, and kernels for NVIDIA GPUs and TPUs.

The form for CPUs takes float32, where a program is known to be for them (`platforms`): its products
are those that their library is quick at. The kernels take bfloat16 only, with float32 sums and
softmax; unlike the others they write neither logits nor weights to memory. The one for GPUs is
cuDNN's, which wants heads of a multiple of 8 channels. What one window's tokens must not see of
each other goes into it as channels of the queries and keys, since a mask for each window would be
as large as the logits.

Shapes: q, k, v [b, windows, tokens, heads, channels]; bias [heads, tokens, tokens], added to the
logits; sides, bool [windows, tokens, axes], or None: tokens that lie on different sides of any axis
do not see each other (`window.shift_sides`).
"""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.ops import platforms, window_attention_cpu, window_attention_tpu
from rvrt_jax.ops.precision import precision_of
from rvrt_jax.ops.window import MASKED

_log = logging.getLogger(__name__)

KERNEL_CHANNELS = 8  # the channels of a head are a multiple of this in cuDNN's kernel
BACKENDS = {"cuda": "gpu", "tpu": "tpu"}  # where the kernels' devices are, JAX's default is this


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
    if q.dtype == jnp.float32 and platforms.known() == "cpu" and not _plain.get():
        mask = None if sides is None else _mask(sides)
        return window_attention_cpu.attend(q, k, v, bias.astype(q.dtype), mask)
    if q.dtype != jnp.bfloat16 or _plain.get():
        return attend_plain(q, k, v, bias, sides)
    return _attend_fused(q, k, v, bias.astype(q.dtype), sides)


def attend_plain(q: Array, k: Array, v: Array, bias: Array, sides: Array | None) -> Array:
    """The readable form, on every platform and in every type."""
    einsum = functools.partial(jnp.einsum, precision=precision_of(q.dtype))
    logits = einsum("bnqad,bnkad->bnaqk", q, k).astype(jnp.float32)
    logits = logits * q.shape[-1] ** -0.5 + bias.astype(jnp.float32)[None, None]
    if sides is not None:
        logits = logits + _mask(sides)[None, :, None]
    weights = jax.nn.softmax(logits).astype(q.dtype)
    return einsum("bnaqk,bnkad->bnqad", weights, v)


def _mask(sides: Array) -> Array:
    """Returns what is added to the logits, float32 [windows, tokens, tokens]."""
    apart = (sides[:, :, None] != sides[:, None]).astype(jnp.float32).sum(axis=-1)
    return jnp.where(apart > 0, MASKED, 0.0)


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


@jax.custom_vjp
def _attend_fused(q: Array, k: Array, v: Array, bias: Array, sides: Array | None) -> Array:
    return _by_platform(attend_cudnn, attend_tpu, attend_plain)(q, k, v, bias, sides)


def _forward(*arrays: Array | None):
    return _attend_fused(*arrays), arrays


def _backward(arrays: tuple[Array | None, ...], d_out: Array):
    """Computes the forward pass again: so no platform keeps what only another needs."""
    return *_by_platform(_gradients_of(attend_cudnn), _gradients_tpu, _gradients_of(attend_plain))(
        *arrays, d_out
    ), None


_attend_fused.defvjp(_forward, _backward)


def _by_platform(cuda: Callable, tpu: Callable, default: Callable) -> Callable:
    """Returns a function of q, k, v, bias, sides and more in its form for the platform."""

    def call(q: Array, k: Array, v: Array, bias: Array, sides: Array | None, *more: Array) -> Any:
        forms = {"cuda": cuda, "tpu": tpu}
        wanted = (platforms.known(),) if platforms.known() else tuple(forms)
        fit = {n: form for n, form in forms.items() if n in wanted and _fits(n, q, sides)}
        return platforms.choose(q, k, v, bias, sides, *more, default=default, **fit)

    return call


def attend_cudnn(q: Array, k: Array, v: Array, bias: Array, sides: Array | None) -> Array:
    """The kernel of NVIDIA GPUs; shapes as in the module's docstring."""
    shape, scale = q.shape, q.shape[-1] ** -0.5
    if sides is not None:
        q, k, v = _with_sides(q, k, v, sides, -MASKED / scale)
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, bias=bias[None], scale=scale, implementation="cudnn")
    return y[..., : shape[-1]].reshape(shape)


def attend_tpu(q: Array, k: Array, v: Array, bias: Array, sides: Array | None) -> Array:
    """The kernel of TPUs; shapes as in the module's docstring."""
    flat = (_flat(x) for x in (q, k, v))
    return window_attention_tpu.attend(*flat, bias, _numbers(sides)).reshape(q.shape)


def _gradients_tpu(q: Array, k: Array, v: Array, bias: Array, sides: Array | None, d_out: Array):
    flat = (_flat(x) for x in (q, k, v))
    found = window_attention_tpu.gradients(*flat, bias, _numbers(sides), _flat(d_out))
    return *(x.reshape(q.shape) for x in found[:3]), found[3]


def _gradients_of(form: Callable[..., Array]) -> Callable[..., tuple[Array, ...]]:
    """Returns a function of the arguments and the result's gradient that gives the arguments'."""

    def gradients(*arrays: Any) -> tuple[Array, ...]:
        *arguments, sides, d_out = arrays
        return jax.vjp(lambda *a: form(*a, sides), *arguments)[1](d_out)

    return gradients


def _flat(x: Array) -> Array:
    b, windows, tokens, heads, channels = x.shape
    return x.reshape(b * windows, tokens, heads * channels)


def _numbers(sides: Array | None) -> Array | None:
    """Returns a number for each set of sides, int32 [windows, tokens]."""
    if sides is None:
        return None
    return (sides << jnp.arange(sides.shape[-1])[None, None]).sum(axis=-1, dtype=jnp.int32)


def _fits(platform: str, q: Array, sides: Array | None) -> bool:
    tokens, heads, channels = q.shape[2:]
    if platform == "cuda" and (channels % KERNEL_CHANNELS or tokens % 2):
        return False
    return _works(platform, tokens, heads, channels, 0 if sides is None else sides.shape[-1])


@functools.cache
def _works(platform: str, tokens: int, heads: int, channels: int, axes: int) -> bool:
    """Returns whether this JAX has a kernel and, where its devices are here, can compile it."""

    def use(x: Array, bias: Array) -> Any:
        form, gradients = attend_cudnn, _gradients_of(attend_cudnn)
        if platform == "tpu":
            form, gradients = attend_tpu, _gradients_tpu
        sides = jnp.zeros((1, tokens, axes), bool) if axes else None
        return form(x, x, x, bias, sides), gradients(x, x, x, bias, sides, x)

    sizes = (2, 1, tokens, heads, channels), (heads, tokens, tokens)
    shapes = [jax.ShapeDtypeStruct(size, jnp.bfloat16) for size in sizes]
    try:
        jax.eval_shape(use, *shapes)
    except RuntimeError:  # a JAX without cuDNN, which has no program for NVIDIA GPUs to make
        return False
    if jax.default_backend() != BACKENDS[platform]:
        return True
    try:
        jax.jit(use).lower(*shapes).compile()
    except Exception as error:  # an old GPU, AMD's, more tokens than a TPU's memory takes
        reason = (str(error).splitlines() or [""])[0]
        _log.warning(
            "Attention inside windows uses the plain form: %s's kernel does not compile (%s).",
            {"cuda": "cuDNN", "tpu": "the TPU"}[platform],
            reason,
        )
        return False
    return True
