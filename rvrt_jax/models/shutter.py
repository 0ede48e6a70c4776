"""How much of the time a shutter was open, from what motion did to the frames' detail.

Blur by a motion b takes b'b/12 of the detail along b, as a share of how fine it is: to the first
term of its series the mean square E of the derivative along a unit vector u falls by
(b.u)^2 / 12 times the mean square C of the second derivative. The frames of a clip show the same
scene, blurred by motions that differ. So the logarithm of E, less its mean over time, is a straight
line over (C / E) (m.u)^2 / 12, less its mean, m being the camera's motion from frame to frame; its
slope is the square of the share of the time that the shutter was open. Motion that blurred nothing
(a short exposure) has a slope of 0. Where motion is the same all the time nothing is known, and the
slope is 0, too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_ANGLES = np.arange(8) * np.pi / 8
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1).astype(np.float32)
# Added to the sum of the squares of the line's places: a clip where they vary less than this tells
# next to nothing.
_DOUBT = 0.03
_DARK = 1e-8  # of mean squares of derivatives, levels from 0 to 1: less is no detail


def open_share(frames: Array, motion: Array) -> Array:
    """Returns for how much of the time the shutter was open, [b, 1, 1, 1, 1] from 0 to 1.

    frames: [b, t, h, w, 3] in [0, 1]. motion: of the camera from frame to frame, in pixels,
    [b, t, 1, 1, 2]. It is a measurement and has no gradient.
    """
    first, second = _detail(frames)  # [b, t, directions]
    fineness = jnp.mean(second / first, axis=1, keepdims=True)
    along = jnp.sum(motion[:, :, 0] * _DIRECTIONS[None, None], axis=-1)
    place = _less_mean(fineness * along**2 / 12)
    lost = -_less_mean(jnp.log(first))
    total = jnp.sum(place**2, axis=(1, 2)) + _DOUBT
    slope = jnp.sum(place * lost, axis=(1, 2)) / total
    share = jnp.sqrt(jnp.clip(slope, 0.0, 1.0))
    return jax.lax.stop_gradient(share)[:, None, None, None, None]


def _less_mean(x: Array) -> Array:
    return x - jnp.mean(x, axis=1, keepdims=True)


def _detail(frames: Array) -> tuple[Array, Array]:
    """Mean squares of the first and second derivatives along each direction, [b, t, directions]."""
    border = [(0, 0), (0, 0), (4, 4), (4, 4)]  # what the filter and the derivatives take
    x = jnp.pad(jnp.mean(frames, axis=-1), border, mode="edge")
    for axis in (2, 3):  # a binomial filter of a pixel's standard deviation, against noise
        parts = [w * _part(x, axis, i, 4) for i, w in enumerate((1, 4, 6, 4, 1))]
        x = jnp.sum(jnp.stack(parts), axis=0) / 16
    dy, dx = _slope(x, 2)[:, :, :, 1:-1], _slope(x, 3)[:, :, 1:-1]
    dyy, dxx, dxy = _slope(dy, 2)[..., 1:-1], _slope(dx, 3)[:, :, 1:-1], _slope(dy, 3)[:, :, 1:-1]
    ux, uy = jnp.asarray(_DIRECTIONS.T)
    means = []
    for parts, weights in (
        ((dx, dy), (ux, uy)),
        ((dxx, dxy, dyy), (ux * ux, 2 * ux * uy, uy * uy)),
    ):
        total = jnp.zeros((*frames.shape[:2], len(_ANGLES)), jnp.float32)
        for i, one in enumerate(parts):
            for j, other in enumerate(parts):
                square = jnp.mean(one * other, axis=(2, 3))
                total += square[..., None] * (weights[i] * weights[j])[None, None]
        means.append(jnp.maximum(total, 0) + _DARK)
    return means[0], means[1]


def _part(x: Array, axis: int, start: int, less: int) -> Array:
    return jax.lax.slice_in_dim(x, start, x.shape[axis] - less + start, axis=axis)


def _slope(x: Array, axis: int) -> Array:
    return (_part(x, axis, 2, 2) - _part(x, axis, 0, 2)) / 2
