"""Temporal consistency: how much a restored video flickers along the motion of the true one."""

from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.models.spynet import SpyNet
from rvrt_jax.ops.sample import pixel_grid, warp


@jax.jit
def warping_error(spynet: dict, frames: Array, truth: Array) -> Array:
    """Returns the warping errors of a restored pair of frames and of the true pair, float32 [2].

    spynet: SpyNet's parameters. frames, truth: [2, h, w, 3] in [0, 1], one frame and the next.
    The error is the mean squared difference between the second frame and the first one warped
    onto it, over the pixels that both true frames see (Lai et al., ECCV 2018, section 4.1); flow
    and visibility are those of the true pair, so that the errors of several methods compare. The
    true pair's own error is what noise, lighting and the flow itself leave: the aim is not 0.
    """
    back, there = cast(Array, SpyNet().apply({"params": spynet}, truth[::-1], truth))
    seen = visible(back, there)[..., None]
    count = 3 * jnp.maximum(jnp.sum(seen), 1)

    def error(pair: Array) -> Array:
        return jnp.sum(seen * (pair[1] - warp(pair[0], back)) ** 2) / count

    return jnp.stack([error(frames), error(truth)])


def visible(flow: Array, opposite: Array) -> Array:
    """Returns where a flow leads to a pixel whose own flow leads back, bool [h, w].

    flow, opposite: [h, w, 2], (dx, dy) in pixels. The bound is that of Ruder et al., GCPR 2016.
    """
    h, w, _ = flow.shape
    target = pixel_grid(h, w)[..., ::-1] + flow
    inside = jnp.all((target >= 0) & (target <= jnp.array([[[w - 1, h - 1]]])), axis=-1)
    returned = warp(opposite, flow)
    gap = jnp.sum((flow + returned) ** 2, axis=-1)
    size = jnp.sum(flow**2, axis=-1) + jnp.sum(returned**2, axis=-1)
    return inside & (gap <= 0.01 * size + 0.5)
