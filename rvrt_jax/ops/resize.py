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

    The same values as PyTorch's `interpolate(mode="bilinear")`. Returns [*size, c]. Whole factors,
    and twice the size with aligned corners, are sums of shifted copies; only other sizes take a
    matrix product, whose cost per pixel grows with the size.
    """
    x = x.astype(jnp.float32)
    for axis, new in enumerate(size):
        old = x.shape[axis]
        if new == old:
            continue
        if align_corners and new == 2 * old:
            x = _double_aligned(x, axis)
        elif not align_corners and new % old == 0:
            x = _enlarge(x, axis, new // old)
        else:
            weights = _hat_weights(old, new, align_corners=align_corners)
            x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis), precision="highest"), 0, axis)
    return x


def _enlarge(x: Array, axis: int, factor: int) -> Array:
    """Enlarges an axis by a whole factor, half-pixel centres: each phase mixes two neighbours."""
    before, after = _neighbours(x, axis)
    phases = []
    for phase in range(factor):
        place = (phase + 0.5) / factor - 0.5  # from the old pixel's centre, in old pixels
        other = before if place < 0 else after
        phases.append((1 - abs(place)) * x + abs(place) * other)
    return _interleave(phases, axis)


def _double_aligned(x: Array, axis: int) -> Array:
    """Doubles an axis with its corners kept in place.

    New pixel 2i lies i / (2n - 1) before old pixel i of n, and 2i + 1 as far behind it as the old
    pixel n - 1 - i would lie before.
    """
    n = x.shape[axis]
    before, after = _neighbours(x, axis)
    share = jnp.arange(n, dtype=jnp.float32) / (2 * n - 1)
    share = share.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    back = jnp.flip(share, axis)
    return _interleave([(1 - share) * x + share * before, (1 - back) * x + back * after], axis)


def _neighbours(x: Array, axis: int) -> tuple[Array, Array]:
    """Returns what lies before and behind each pixel of an axis; the border is repeated."""
    n = x.shape[axis]
    first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, n - 1))
    before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), last], axis)
    return before, after


def _interleave(phases: list[Array], axis: int) -> Array:
    """Weaves arrays of one shape into one along `axis`, in turns."""
    x = jnp.stack(phases, axis + 1)
    return x.reshape([*x.shape[:axis], -1, *x.shape[axis + 2 :]])


def bicubic_shrink(x: Array, factor: int) -> Array:
    """Reduces [f h, f w, c] to [h, w, c]: bicubic with a=-0.75, half-pixel, no antialiasing.

    With an even factor f every output lies midway between two inputs, so that the four weights are
    the same everywhere. Where f is 2 the outer two belong to the neighbours' blocks; the border is
    repeated.
    """
    before = factor // 2 - 2  # from a block's start to the first of the four
    pad = max(0, -before)
    x = jnp.pad(x.astype(jnp.float32), ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    for axis in (0, 1):
        length = x.shape[axis] - 2 * pad
        starts = range(before + pad, before + pad + 4)
        taps = [jax.lax.slice_in_dim(x, i, i + length - factor + 1, factor, axis) for i in starts]
        outer, inner = taps[0] + taps[3], taps[1] + taps[2]
        x = 0.59375 * inner - 0.09375 * outer
    return x


def average_pool_2x2(x: Array) -> Array:
    """Halves [2h, 2w, c] by the mean of each 2x2 block."""
    return rearrange(x, "(h i) (w j) c -> h w i j c", i=2, j=2).mean((2, 3))


def pixel_shuffle(x: Array, factor: int = 2) -> Array:
    """Spreads channels over sub-pixels: [..., h, w, c f f] -> [..., h f, w f, c].

    Output channel c at sub-pixel (dy, dx) is input channel f*f*c + f*dy + dx.
    """
    return rearrange(x, "... h w (c i j) -> ... (h i) (w j) c", i=factor, j=factor)
