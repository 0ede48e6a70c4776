"""The compiled programs of a restoration, and the memory that they need.

A network is compiled once for each shape; what prepares its input and joins its results runs on
the same device, with the same rounding as on the host.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Params, Size, in_channels, traced_for
from rvrt_jax.restoration.ensemble import Turn, turned_back


def current_device() -> Any:
    """Returns the device that computes unless another one is asked for."""
    return next(iter(jnp.zeros(()).devices()))


class OutOfMemory(UserError):
    """The device or the host ran out of memory; a smaller tile may fit."""


@functools.partial(jax.jit, static_argnums=0)
def apply(model: Network, params: Params, video: Array) -> Array:
    """Runs a network on [b, t, h, w, c]."""
    return model.apply({"params": params}, video)


@functools.partial(jax.jit, static_argnums=0)
def features(model: Any, params: Params, frames: Array) -> Any:
    """Returns what windows share of frames, [b, h, w, 3] (`WindowNetwork.features`)."""
    return model.apply({"params": params}, frames, method="features")


@functools.partial(jax.jit, static_argnums=0)
def fuse(model: Any, params: Params, pyramids: Any, middle: Array) -> tuple[Array, dict]:
    """Returns the middle frames, [b, scale * h, scale * w, 3], and the network's diagnostics.

    pyramids: of each frame of the window a list of b features, [1, h, w, c] each. middle:
    [b, h, w, 3].
    """
    stacked = [jax.tree.map(lambda *x: jnp.concatenate(x), *frame) for frame in pyramids]
    window = jax.tree.map(lambda *x: jnp.stack(x), *stacked)
    out, said = model.apply(
        {"params": params}, window, middle, method="fuse", mutable=["diagnostics"]
    )
    return out, said.get("diagnostics", {})


@jax.jit
def to_float(video: Array, largest: Array) -> Array:
    """Returns integer frames as float32, `largest` as 1."""
    return _divided(video.astype(jnp.float32), largest)


@functools.partial(jax.jit, static_argnums=2)
def to_integers(frames: Array, largest: Array, dtype: np.dtype) -> Array:
    """Returns frames clamped to [0, 1], rounded to integers up to `largest`, halves to even."""
    return jnp.rint(jnp.clip(frames, 0, 1) * largest).astype(dtype)


@jax.jit
def all_finite(frames: Array) -> Array:
    """Returns whether all values of each frame are finite, bool [t].

    A program of its own: together with `to_integers` both take ten times as long on a CPU.
    """
    # What is not a number, or infinite, times 0 is not a number, and so is the sum.
    return jnp.isfinite(jnp.sum(frames * 0, axis=(1, 2, 3)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def upright(out: Array, size: tuple[int, int, int], turn: Turn) -> Array:
    """Crops what mirroring added to [t, h, w, c], to `size` (turned), and turns it back."""
    t, h, w = size
    return turned_back(out[:t, :h, :w], turn)


@functools.partial(jax.jit, donate_argnums=0)
def add_piece(plane: Array, piece: Array, at: tuple, counts: tuple[Array, Array]) -> Array:
    """Adds a piece, over the number of pieces at each pixel, to [t, h, w, c] from row, column on.

    counts: how many pieces cover each row, and each column; a pixel has their product.
    """
    t, h, w, c = piece.shape
    count = counts[0][None, :, None, None] * counts[1][None, None, :, None]
    start = (0, *at, 0)
    there = jax.lax.dynamic_slice(plane, start, (t, h, w, c))
    return jax.lax.dynamic_update_slice(plane, there + _divided(piece, count), start)


@jax.jit
def add_shared(block: Array, shared: Array) -> Array:
    """Adds `shared` to the first frames of a block."""
    return block.at[: len(shared)].add(shared)


@jax.jit
def mean(total: Array, count: Array) -> Array:
    """Returns [t, h, w, c], its first frames divided by the numbers [n], n <= t."""
    n = len(count)
    return total.at[:n].set(_divided(total[:n], count[:, None, None, None]))


def _divided(x: Array, by: Array) -> Array:
    """Divides, as NumPy does: the compiler makes factors of divisors that it knows to be alike.

    A product with 1 / 3 rounds differently from a division by 3.
    """
    return x / jax.lax.optimization_barrier(jnp.broadcast_to(by, x.shape))


def memory_needed(model: Network, params: Params, call: Size, *, batch: int = 1) -> int:
    """Compiles the network for (t, h, w) and returns the bytes that the compiler says it takes.

    call: with a window the first number is the windows at once. batch: tiles at once.
    Raises OutOfMemory where a compiler finds out that a program cannot fit.
    """
    with (
        traced_for(current_device()),
        explained(call, "frames" if model.window is None else "windows"),
    ):
        if model.window is not None:
            return _window_memory(model, params, call)
        video = jax.ShapeDtypeStruct((batch, *call, in_channels(model)), np.float32)
        return _bytes(apply.lower(model, params, video).compile())


def _window_memory(model: Network, params: Params, call: Size) -> int:
    """Does what `memory_needed` does for the larger half of a network with a window.

    To fusing, the features of its windows count among the arguments. While new frames are looked
    at, the device keeps those of the frames before, and cuts the new ones from the result.
    """
    batch, h, w = call
    frame, middle = (jax.ShapeDtypeStruct((n, h, w, 3), np.float32) for n in (1, batch))
    pyramid = jax.eval_shape(functools.partial(features, model), params, frame)
    window = model.window or 1
    pyramids = [[pyramid] * batch] * window
    looking = features.lower(model, params, middle).compile()
    fusing = fuse.lower(model, params, pyramids, middle).compile()
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pyramid))
    image = 4 * 3 * h * w
    beside = (window - 1) * (kept + image) + batch * kept
    return max(_bytes(looking) + beside, _bytes(fusing))


def _bytes(program: Any) -> int:
    memory = program.memory_analysis()
    assert memory is not None  # CPU, GPU and TPU report it
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


@contextlib.contextmanager
def explained(shape: Size, of: str = "frames") -> Iterator[None]:
    """Turns an out-of-memory error for (frames, height, width) into one that says the way out."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        t, h, w = shape
        raise OutOfMemory(
            f"there is too little memory for {t} {of} of {w}x{h} pixels at once. "
            f"Pass a smaller tile ({of}, height, width)."
        ) from error
