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
from rvrt_jax.ops.precision import EXACT
from rvrt_jax.ops.resize import resize_bilinear
from rvrt_jax.ops.sample import warp

Weight = tuple[float, float]
# Steps of second differences, as shares of the motion, and their weights: nine tenths of those that
# were fitted to twelve training clips (benchmarks/blur_filters.py makes such a fit). THEIRS are of
# the mean of both neighbours, and so twice those of a sum.
OWN: tuple[Weight, ...] = ((0.25, 0.63), (0.5, 0.16), (0.75, -0.27))
THEIRS: tuple[Weight, ...] = ((0.5, -0.49), (1.0, 0.16))
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
    blur = open_share(frames, camera) * camera
    sides = jnp.broadcast_to(blur, local.shape), local - camera
    s, m = (jnp.moveaxis(x[:, :, 0, 0], 1, 0) for x in (blur, camera))
    x = jnp.moveaxis(frames, 1, 0)
    own, most = (jnp.moveaxis(_filtered(x, way, OWN), 0, 1) for way in (s, m))
    warped = jax.vmap(jax.vmap(functools.partial(warp, border="border")))
    theirs = _join(
        warped(_filtered(x[:-1], s[1:], THEIRS), before),
        warped(_filtered(x[1:], s[:-1], THEIRS), behind),
    )
    given = own + share * (theirs[..., :3] + theirs[..., 3:])
    return jnp.concatenate([given, most], axis=-1), jnp.concatenate(sides, axis=-1) / 10


def common_motion(motion: Array) -> Array:
    """The geometric median of motions [..., h, w, 2], [..., 1, 1, 2] (Weiszfeld's algorithm)."""
    median = jnp.mean(motion, axis=(-3, -2), keepdims=True)
    for _ in range(_STEPS):
        square = jnp.sum((motion - median) ** 2, axis=-1, keepdims=True)
        weight = 1 / jnp.sqrt(square + _NEAR**2)
        total = jnp.sum(weight, axis=(-3, -2), keepdims=True)
        median = jnp.sum(weight * motion, axis=(-3, -2), keepdims=True) / total
    return median


def _filtered(frames: Array, motion: Array, weights: tuple[Weight, ...]) -> Array:
    """Weighted second differences of frames [t, b, h, w, 3] along their motions [t, b, 2]."""
    ways = jnp.array([sign * step for step, _ in weights for sign in (1, -1)], jnp.float32)
    shares = jnp.array([w for _, w in weights for _ in range(2)], jnp.float32)

    def one(image: Array, m: Array) -> Array:
        ends = jax.vmap(shifted, (None, 0))(image, ways[:, None] * m[None])
        return jnp.tensordot(shares, ends - image[None], axes=1, precision=EXACT)

    return jax.vmap(jax.vmap(one))(frames, motion)


def shifted(image: Array, by: Array) -> Array:
    """Returns image(p + by) of [h, w, c], by (x, y), with the border repeated.

    Cubic interpolation (Keys, 1981, a = -0.5): that of `warp` blurs between pixels, which second
    differences would take for motion.
    """
    for axis, distance in ((1, by[0]), (0, by[1])):
        whole = jnp.floor(distance)
        u = distance - whole
        near = jnp.arange(image.shape[axis]) + whole.astype(jnp.int32)
        weights = (
            ((2 - u) * u - 1) * u / 2,
            ((3 * u - 5) * u * u + 2) / 2,
            ((4 - 3 * u) * u + 1) * u / 2,
            (u - 1) * u * u / 2,
        )
        places = [jnp.clip(near + k, 0, image.shape[axis] - 1) for k in (-1, 0, 1, 2)]
        parts = [w * jnp.take(image, at, axis=axis) for w, at in zip(weights, places, strict=True)]
        image = jnp.sum(jnp.stack(parts), axis=0)
    return image


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
