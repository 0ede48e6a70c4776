"""SpyNet: optical flow from a pyramid of small networks.

Source: Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017, in
the form that the published video restoration networks use (six levels, ImageNet normalisation).
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Conv, Remat, map_scan
from rvrt_jax.ops.precision import EXACT
from rvrt_jax.ops.resize import average_pool_2x2, resize_bilinear
from rvrt_jax.ops.sample import warp

LEVELS = 6
PIXELS_AT_ONCE = 5 * 64 * 64  # of one frame of each pair; what takes no more memory than the rest
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class SpyNetLevel(nn.Module):
    """Five 7x7 convolutions from [reference, warped support, flow] to a correction of the flow."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, features in enumerate((32, 64, 32, 16)):
            x = nn.relu(Conv(features, kernel=7, precision=EXACT, name=f"conv_{i}")(x))
        return Conv(2, kernel=7, precision=EXACT, name="conv_4")(x)


class SpyNet(nn.Module):
    """Flow from `reference` to `support`: `warp(support, flow)` resembles `reference`.

    reference, support: float32 [b, h, w, 3] RGB in [0, 1], any size. Returns float32 [b, h, w, 2],
    (dx, dy) in pixels. Always computed in float32.
    """

    @nn.compact
    def __call__(self, reference: Array, support: Array) -> Array:
        b, h, w, _ = reference.shape
        multiple = 2 ** (LEVELS - 1)
        size = (-(-h // multiple) * multiple, -(-w // multiple) * multiple)
        frames = jnp.concatenate([reference, support]).astype(jnp.float32)
        frames = jax.vmap(lambda x: resize_bilinear(x, size))(frames)
        frames = (frames - jnp.array([[[MEAN]]])) / jnp.array([[[STD]]])
        pyramid = [frames]
        for _ in range(LEVELS - 1):
            pyramid.insert(0, jax.vmap(average_pool_2x2)(pyramid[0]))

        flow = jnp.zeros((b, *pyramid[0].shape[1:3], 2), jnp.float32)
        for level, pair in enumerate(pyramid):
            shape = pair.shape[1:3]
            if level:
                up = jax.vmap(lambda f, s=shape: resize_bilinear(f, s, align_corners=True))
                flow = 2 * up(flow)
            warped = jax.vmap(lambda x, f: warp(x, f, border="border"))(pair[b:], flow)
            inputs = jnp.concatenate([pair[:b], warped, flow], axis=-1)
            flow = flow + SpyNetLevel(name=f"level_{level}")(inputs)
        flow = jax.vmap(lambda f: resize_bilinear(f, (h, w)))(flow)
        return flow * jnp.array([[[[w / size[1], h / size[0]]]]], jnp.float32)


def neighbour_flows(
    spynet: SpyNet, frames: Array, *, remat: Remat = False, constant: int = 0
) -> tuple[Array, Array]:
    """Returns the flows from each frame to the next and back, float32 [t - 1, b, h, w, 2] each.

    frames: float32 [t, b, h, w, 3]. A few pairs of frames at a time, of large frames one, so that
    memory does not grow with t. constant: flows between two of the first so many frames get no
    gradient.
    """
    t, b, *size = frames.shape[:4]
    if t == 1:
        if spynet.is_initializing():  # the parameters must not depend on the clip's length
            spynet(frames[0], frames[0])
        none = jnp.zeros((0, *frames.shape[1:-1], 2), jnp.float32)
        return none, none

    steps = -(-(t - 1) // max(1, PIXELS_AT_ONCE // (b * math.prod(size))))
    together = -(-(t - 1) // steps)
    constant = max(0, constant - 1)  # of the pairs
    last = jnp.broadcast_to(frames[-1:], (steps * together - (t - 1), *frames.shape[1:]))
    frames = jnp.concatenate([frames, last])
    pairs = (x.reshape(steps, -1, *size, 3) for x in (frames[:-1], frames[1:]))

    def both_ways(spynet: SpyNet, x: tuple[Array, Array]) -> Array:
        first, second = x
        return spynet(jnp.concatenate([first, second]), jnp.concatenate([second, first]))

    whole = constant // together  # steps all of whose pairs are constant
    flows = map_scan(spynet, both_ways, tuple(pairs), remat=remat, constant=whole)
    flows = flows.reshape(steps, 2, together, b, *size, 2)
    to_next, to_previous = (flows[:, way].reshape(-1, b, *size, 2)[: t - 1] for way in (0, 1))
    if constant % together:
        to_next, to_previous = (
            jnp.concatenate([jax.lax.stop_gradient(x[:constant]), x[constant:]])
            for x in (to_next, to_previous)
        )
    return to_next, to_previous
