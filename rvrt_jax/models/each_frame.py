"""What a network does with each frame of a window, in the way that suits the platform."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rvrt_jax.ops import platforms

Call = Callable[[Any, Any, Any], Any]  # (params, a frame, what all share)


def each_frame(
    module: nn.Module, method: str, frames: Any, *shared: Any, remat: bool = False
) -> Any:
    """Calls a method of a module with each frame of windows, and with what these share.

    frames: arrays [t, b, ...]; shared: arrays [b, ...]. Returns what the method returns, arrays
    [b, ...], with t in front. CPUs take one frame at a time, so that memory does not grow with the
    window. Accelerators take all in one batch: as many kernels as for one. remat: recompute
    intermediate values in the backward pass instead of keeping them.
    """
    if module.is_initializing():  # parameters alone are kept, and each frame has the same
        y = getattr(module, method)(jax.tree.map(lambda x: x[0], frames), *shared)
        count = len(jax.tree.leaves(frames)[0])
        return jax.tree.map(lambda y: jnp.broadcast_to(y, (count, *y.shape)), y)
    alone, variables = module.unbind()

    def call(params: Any, frame: Any, shared: Any) -> Any:
        return alone.apply({"params": params}, frame, *shared, method=method)

    return platforms.choose(
        variables["params"],
        frames,
        shared,
        cpu=_one_by_one(jax.checkpoint(call, prevent_cse=False) if remat else call),
        default=_in_one_batch(jax.checkpoint(call) if remat else call),
    )


def _one_by_one(call: Call) -> Call:
    return lambda params, frames, shared: jax.lax.map(
        lambda frame: call(params, frame, shared), frames
    )


def _in_one_batch(call: Call) -> Call:
    def together(params: Any, frames: Any, shared: Any) -> Any:
        t, b = jax.tree.leaves(frames)[0].shape[:2]
        joined = jax.tree.map(lambda x: x.reshape(t * b, *x.shape[2:]), frames)
        repeated = jax.tree.map(lambda x: jnp.concatenate([x] * t), shared)
        y = call(params, joined, repeated)
        return jax.tree.map(lambda y: y.reshape(t, b, *y.shape[1:]), y)

    return together
