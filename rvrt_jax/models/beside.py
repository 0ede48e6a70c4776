"""What a small RVRT of ours sees beside each frame: its neighbours, or what its motion took away.

Both take frames [b, t, h, w, 3] and the flows between neighbours at the features' size, `stride`
times smaller, {"forward": to the frame before, "backward": to the frame behind}, each
[t - 1, b, h, w, 2] in the direction's own order. Both return differences [b, t, h, w, 6] and the
flows to the frame before and the one behind, [b, t, h, w, 4] in tens of pixels, 0 where there is
no neighbour.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.ops.resize import resize_bilinear
from rvrt_jax.ops.sample import warp


def neighbours(frames: Array, flows: dict[str, Array], stride: int) -> tuple[Array, Array]:
    """Differences of the frame before and of the one behind, warped to each frame, from it.

    They are 0 where there is no neighbour. DVDnet (Tassano et al., ICIP 2019) stacks such frames.
    """
    before, behind = _flows(frames, flows, stride)
    frames = jnp.moveaxis(frames, 1, 0)

    def difference(neighbour: Array, frame: Array, flow: Array) -> Array:
        return warp(neighbour, flow, border="border") - frame

    each = jax.vmap(jax.vmap(difference))
    seen = _join(each(frames[:-1], frames[1:], before), each(frames[1:], frames[:-1], behind))
    return seen, _join(before, behind) / 10


def along_motion(frames: Array, flows: dict[str, Array], stride: int) -> tuple[Array, Array]:
    """Second differences along the motion m: x(p + m / 4) - 2 x(p) + x(p - m / 4), and with m / 2.

    m: from each frame to the next. Blur by a motion m adds about |m|^2 / 24 of the second
    derivative along it (the first term of its series).
    """
    moved = _join(*_flows(frames, flows, stride))
    before, behind = moved[..., :2], moved[..., 2:]
    share = jnp.full(frames.shape[1], 0.5).at[jnp.array([0, -1])].set(1.0)  # ends know one flow
    motion = share[None, :, None, None, None] * (behind - before)

    def second(frame: Array, step: Array) -> Array:
        ends = (warp(frame, sign * step, border="border") for sign in (1, -1))
        return sum(ends) - 2 * frame

    each = jax.vmap(jax.vmap(second))
    return jnp.concatenate([each(frames, motion / k) for k in (4, 2)], axis=-1), moved / 10


def _flows(frames: Array, flows: dict[str, Array], stride: int) -> tuple[Array, Array]:
    """Returns the flows in pixels of the frames, [t - 1, b, h, w, 2], in order of time."""
    h, w = frames.shape[2:4]
    enlarge = jax.vmap(jax.vmap(functools.partial(resize_bilinear, size=(h, w))))
    return stride * enlarge(flows["forward"]), stride * enlarge(flows["backward"][::-1])


def _join(before: Array, behind: Array) -> Array:
    """Joins what the frames after the first and before the last have, [t - 1, b, ...], channels."""
    none = jnp.zeros((1, *before.shape[1:]), before.dtype)
    both = jnp.concatenate([none, before]), jnp.concatenate([behind, none])
    return jnp.moveaxis(jnp.concatenate(both, axis=-1), 0, 1)
