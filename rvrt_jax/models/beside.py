"""What a small RVRT of ours sees beside each frame: its neighbours, or what its motion took away.

Both take frames [b, t, h, w, 3] and the flows between neighbours at the features' size, `stride`
times smaller, {"forward": to the frame before, "backward": to the frame behind}, each
[t - 1, b, h, w, 2] in the direction's own order. Both return differences [b, t, h, w, 6] and
motions [b, t, h, w, 4] in tens of pixels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.models.shutter import open_share
from rvrt_jax.ops.resize import resize_bilinear
from rvrt_jax.ops.sample import warp

Weight = tuple[float, float]
# Steps of second differences, as shares of the motion, and their weights: four fifths of the best
# ones (benchmarks/blur_filters.py). THEIRS are of the mean of both neighbours, and so twice those
# of a sum.
OWN: tuple[Weight, ...] = ((0.25, 0.19), (0.5, 0.78), (0.75, -0.66))
THEIRS: tuple[Weight, ...] = ((0.5, -0.53), (1.0, 0.24))
# Of the geometric median: steps, and pixels nearer than which all motions weigh the same.
_STEPS, _NEAR = 8, 0.1


def neighbours(frames: Array, flows: dict[str, Array], stride: int) -> tuple[Array, Array]:
    """Differences of the frame before and of the one behind, warped to each frame, from it.

    They are 0 where there is no neighbour. The motions are the flows to either. DVDnet (Tassano et
    al., ICIP 2019) stacks such frames.
    """
    before, behind = _flows(frames, flows, stride)
    frames = jnp.moveaxis(frames, 1, 0)

    def difference(neighbour: Array, frame: Array, flow: Array) -> Array:
        return warp(neighbour, flow, border="border") - frame

    each = jax.vmap(jax.vmap(difference))
    seen = _join(each(frames[:-1], frames[1:], before), each(frames[1:], frames[:-1], behind))
    return seen, _join(before, behind) / 10


def along_motion(frames: Array, flows: dict[str, Array], stride: int) -> tuple[Array, Array]:
    """What a linear filter along the blur gives back, and the frames' own part of it at most.

    The frames plus the first three channels are what the filter makes of them: weighted sums of
    second differences x(p + k s) - 2 x(p) + x(p - k s) along the blur s, of the frame and of its
    neighbours, the mean of both. Blur by s adds about |s|^2 / 24 of the second derivative along it
    (the first term of its series). Neighbours, warped to the frame, were blurred by motions of
    their own and keep what this frame lost. s is the motion m of most of the frame to the next, as
    far as the shutter was open (`shutter.open_share`): flow is least certain where there is blur.
    The other three channels are the frame's own part if it was open all the time. The motions are
    s, and how far each pixel's differs from m.
    """
    before, behind = _flows(frames, flows, stride)
    moved = _join(before, behind)
    # The ends of a clip know one flow and one neighbour.
    ends = jnp.array([0, -1])
    share = jnp.full((1, frames.shape[1], 1, 1, 1), 0.5).at[:, ends].set(1.0)
    local = share * (moved[..., 2:] - moved[..., :2])
    camera = common_motion(local)
    blur = jnp.broadcast_to(open_share(frames, camera) * camera, local.shape)
    motions = jnp.concatenate([blur, local - camera], axis=-1) / 10
    s, x = jnp.moveaxis(blur, 1, 0), jnp.moveaxis(frames, 1, 0)
    m = jnp.moveaxis(jnp.broadcast_to(camera, local.shape), 1, 0)
    still = jnp.zeros_like(m)
    own, most = (jnp.moveaxis(_filtered(x, still, way, OWN), 0, 1) for way in (s, m))
    theirs = _join(
        _filtered(x[:-1], before, s[1:], THEIRS), _filtered(x[1:], behind, s[:-1], THEIRS)
    )
    given = own + share * (theirs[..., :3] + theirs[..., 3:])
    return jnp.concatenate([given, most], axis=-1), motions


def common_motion(motion: Array) -> Array:
    """The geometric median of motions [..., h, w, 2], [..., 1, 1, 2] (Weiszfeld's algorithm)."""
    median = jnp.mean(motion, axis=(-3, -2), keepdims=True)
    for _ in range(_STEPS):
        square = jnp.sum((motion - median) ** 2, axis=-1, keepdims=True)
        weight = 1 / jnp.sqrt(square + _NEAR**2)
        total = jnp.sum(weight, axis=(-3, -2), keepdims=True)
        median = jnp.sum(weight * motion, axis=(-3, -2), keepdims=True) / total
    return median


def _filtered(frames: Array, flows: Array, m: Array, weights: tuple[Weight, ...]) -> Array:
    """Weighted second differences along m of frames that are warped by flows, [t, b, h, w, 3]."""

    def one(image: Array, flow: Array, m: Array) -> Array:
        def at(step: float) -> Array:
            return warp(image, flow + step * m, border="border")

        still = at(0.0)
        return sum(w * (at(step) + at(-step) - 2 * still) for step, w in weights)

    return jax.vmap(jax.vmap(one))(frames, flows, m)


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
