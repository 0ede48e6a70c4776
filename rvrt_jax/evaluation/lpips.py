"""LPIPS: how different two images look, measured by features of an image classifier.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018, arXiv 1801.03924, version 0.1 of the published weights. 0 means equal; lower is better.
Papers on video use AlexNet ("alex"); VGG is the other published classifier. It is computed in
float32 on every platform.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.weights.lpips import CONVOLUTIONS

Net = Literal["alex", "vgg"]

# What the published implementation takes from an image in [-1, 1] and divides it by.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_SMALLEST = {"alex": 31, "vgg": 16}  # pixels that leave one for the last features


class _Slice(NamedTuple):
    """A part of a classifier: max pooling by this window with stride 2, if any; convolutions."""

    pool: int = 0
    stride: int = 1
    padding: int = 1


_SLICES = {
    "alex": (_Slice(0, 4, 2), _Slice(3, 1, 2), _Slice(3), _Slice(), _Slice()),
    "vgg": (_Slice(), *[_Slice(2)] * 4),
}


@functools.partial(jax.jit, static_argnames="net")
def lpips(params: dict, a: Array, b: Array, *, net: Net = "alex") -> Array:
    """Returns the distance of two images, float32 scalar.

    params: as `weights.lpips.load` returns them for `net`. a, b: [h, w, 3] in [0, 1], RGB.
    Raises ValueError for different shapes and for sides below 31 pixels (VGG: 16).
    """
    if a.shape != b.shape or a.shape[-1] != 3 or a.ndim != 3:
        raise ValueError(f"the images are {a.shape} and {b.shape}; give two [h, w, 3].")
    if min(a.shape[:2]) < _SMALLEST[net]:
        raise ValueError(f"{a.shape[0]}x{a.shape[1]} is too small: {_SMALLEST[net]} is needed.")
    images = 2 * jnp.stack([a, b]).astype(jnp.float32) - 1
    x = (images - jnp.array(_SHIFT)[None, None, None]) / jnp.array(_SCALE)[None, None, None]
    distance = jnp.float32(0)
    for s, (part, places) in enumerate(zip(_SLICES[net], CONVOLUTIONS[net], strict=True)):
        if part.pool:
            x = _max_pool(x, part.pool)
        for i in places:
            x = _convolve(x, **params[f"slice_{s + 1}"][f"conv_{i}"], part=part)
        unit = x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)
        head = params[f"head_{s}"][0, :, :, 0]
        distance += jnp.mean(jnp.sum(head[None] * (unit[0] - unit[1]) ** 2, axis=-1))
    return distance


def _convolve(x: Array, kernel: Array, bias: Array, *, part: _Slice) -> Array:
    """Convolves [b, h, w, c] and keeps what is positive."""
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (part.stride,) * 2,
        ((part.padding, part.padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    return jax.nn.relu(y + bias[None, None, None])


def _max_pool(x: Array, window: int) -> Array:
    """Takes the largest of each window that lies inside, every second one: [b, h, w, c]."""
    size, strides = (1, window, window, 1), (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, size, strides, "valid")
