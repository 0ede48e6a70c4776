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

Weight = tuple[float, float]
# Steps of second differences, as shares of the motion, and their weights: half of the best ones,
# which are for a shutter that never closes and for flow that is never wrong.
OWN: tuple[Weight, Weight] = ((0.25, 0.53), (1.0, -0.14))
THEIRS: tuple[Weight, Weight] = ((0.5, -0.31), (1.0, 0.14))


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
    """What a linear filter gives back to blurred frames, from themselves and from their neighbours.

    The frames plus both parts are what the filter makes of them. Both are weighted sums of second
    differences x(p + k m) - 2 x(p) + x(p - k m) along the motion m from each frame to the next:
    blur by a motion m adds about |m|^2 / 24 of the second derivative along it (the first term of
    its series). Neighbours, warped to the frame, were blurred by motions of their own and keep what
    this frame lost; their part is the mean of both. Weights: benchmarks/blur_filters.py.
    """
    before, behind = _flows(frames, flows, stride)
    moved = _join(before, behind)
    # The ends of a clip know one flow and one neighbour.
    share = jnp.full((1, frames.shape[1], 1, 1, 1), 0.5).at[:, jnp.array([0, -1])].set(1.0)
    motion = jnp.moveaxis(share * (moved[..., 2:] - moved[..., :2]), 1, 0)

    def part(image: Array, flow: Array, m: Array, *, weights: tuple[Weight, Weight]) -> Array:
        def at(step: float) -> Array:
            return warp(image, flow + step * m, border="border")

        def second(step: float) -> Array:
            return at(step) + at(-step) - 2 * at(0.0)

        (step, weight), (other_step, other_weight) = weights
        return weight * second(step) + other_weight * second(other_step)

    each = {
        name: jax.vmap(jax.vmap(functools.partial(part, weights=weights)))
        for name, weights in (("own", OWN), ("theirs", THEIRS))
    }
    x = jnp.moveaxis(frames, 1, 0)
    own = jnp.moveaxis(each["own"](x, jnp.zeros_like(motion), motion), 0, 1)
    theirs = _join(
        each["theirs"](x[:-1], before, motion[1:]), each["theirs"](x[1:], behind, motion[:-1])
    )
    theirs = share * (theirs[..., :3] + theirs[..., 3:])
    return jnp.concatenate([own, theirs], axis=-1), moved / 10


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
