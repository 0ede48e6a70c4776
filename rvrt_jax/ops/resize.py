"""Resizing as PyTorch does it, and pixel shuffle, on one image [h, w, c]."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array


def _hat_weights(size: int, new_size: int, *, align_corners: bool) -> Array:
    """Returns the bilinear weights [new_size, size] of one axis; the border is repeated.

    Computed in the program: as a constant they would swell the compiled text.
    """
    index = jnp.arange(new_size, dtype=jnp.float32)
    if align_corners:
        source = index * ((size - 1) / max(new_size - 1, 1))
    else:
        source = (index + 0.5) * (size / new_size) - 0.5
    source = jnp.clip(source, 0.0, size - 1.0)
    return jax.nn.relu(1.0 - jnp.abs(source[:, None] - jnp.arange(size, dtype=jnp.float32)[None]))


def resize_bilinear(x: Array, size: tuple[int, int], *, align_corners: bool = False) -> Array:
    """Resizes [h, w, c] to `size` without antialiasing, in float32; half-pixel centres by default.

    The same values as PyTorch's `interpolate(mode="bilinear")`. Returns [*size, c].
    """
    h, w, _ = x.shape
    x = x.astype(jnp.float32)
    if h != size[0]:
        rows = _hat_weights(h, size[0], align_corners=align_corners)
        x = jnp.einsum("ph,hwc->pwc", rows, x, precision="highest")
    if w != size[1]:
        columns = _hat_weights(w, size[1], align_corners=align_corners)
        x = jnp.einsum("qw,hwc->hqc", columns, x, precision="highest")
    return x


def bicubic_quarter(x: Array) -> Array:
    """Reduces [4h, 4w, c] to [h, w, c]: bicubic with a=-0.75, half-pixel, no antialiasing.

    At exactly 1/4 every output lies midway between the 2nd and 3rd of its own four inputs, so the
    four weights are the same everywhere and no border is met.
    """
    weights = jnp.array([-0.09375, 0.59375, 0.59375, -0.09375], jnp.float32)
    x = rearrange(x.astype(jnp.float32), "(h i) (w j) c -> h i w j c", i=4, j=4)
    return jnp.einsum("hiwjc,i,j->hwc", x, weights, weights, precision="highest")


def average_pool_2x2(x: Array) -> Array:
    """Halves [2h, 2w, c] by the mean of each 2x2 block."""
    return rearrange(x, "(h i) (w j) c -> h w i j c", i=2, j=2).mean((2, 3))


def pixel_shuffle(x: Array, factor: int = 2) -> Array:
    """Spreads channels over sub-pixels: [..., h, w, c f f] -> [..., h f, w f, c].

    Output channel c at sub-pixel (dy, dx) is input channel f*f*c + f*dy + dx.
    """
    return rearrange(x, "... h w (c i j) -> ... (h i) (w j) c", i=factor, j=factor)
