"""Bilinear sampling, flow warping and flow composition.

Two implementations of one definition: `bilinear_sample` fetches the four neighbouring rows of all
channels at once and is what the networks use; `bilinear_sample_plain` is `jax.vmap` over
`map_coordinates`, one channel at a time, the readable definition that the tests hold it against.
Coordinates are float32 whatever the image's dtype.

What deformable attention and deformable convolution stream over their taps is below both:
`corners`, `pad_corners`, `sample_rows` and its hand-written backward pass, `sum_last`.
"""

import functools
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

Border = Literal["zeros", "border"]


def bilinear_sample_plain(x: Array, coords: Array, *, border: Border = "zeros") -> Array:
    """Samples `x` at real positions, one channel at a time.

    x: [h, w, c]. coords: [..., 2], (y, x) in pixels. Returns [..., c] in x.dtype. A neighbour
    outside the image counts as 0 ("zeros"), or the position is clamped to the image ("border").
    """
    mode = "constant" if border == "zeros" else "nearest"
    sample = functools.partial(map_coordinates, order=1, mode=mode)
    return jax.vmap(sample, in_axes=(-1, None), out_axes=-1)(x, [coords[..., 0], coords[..., 1]])


def corners(coords: Array, height: int, width: int) -> tuple[Array, Array, Array, Array]:
    """Splits positions into the corner indices and weights of an image padded by `pad_corners`.

    coords: [..., 2], (y, x) in pixels. Returns the row index of the upper left corner in the
    flattened padded image (int32 [...]), whether the sample lies inside (bool [...]), and the
    fractions (fy, fx) in [0, 1). A sample at or beyond -1, or at or beyond the size, reads zeros
    only and has no derivative: the rule of the CUDA kernels of deformable convolution, which
    differs from a one-sided slope only at a coordinate of exactly -1.
    """
    y, x = coords[..., 0].astype(jnp.float32), coords[..., 1].astype(jnp.float32)
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = jnp.where(inside, y, -1.0), jnp.where(inside, x, -1.0)
    y0, x0 = jnp.floor(y), jnp.floor(x)
    index = (y0.astype(jnp.int32) + 1) * (width + 2) + x0.astype(jnp.int32) + 1
    return index, inside, y - y0, x - x0


def pad_corners(x: Array) -> Array:
    """Borders [h, w, c] with zeros, one pixel all round, and flattens it to [(h+2)(w+2), c]."""
    h, w, c = x.shape
    return jnp.pad(x, ((1, 1), (1, 1), (0, 0))).reshape((h + 2) * (w + 2), c)


def bilinear_sample(x: Array, coords: Array, *, border: Border = "zeros") -> Array:
    """Samples `x` at real positions, all channels of a neighbour in one fetch.

    Shapes, border rules and values as `bilinear_sample_plain`.
    """
    h, w, _ = x.shape
    if border == "border":
        limit = jnp.broadcast_to(jnp.array([h - 1, w - 1], jnp.float32), coords.shape)
        coords = jnp.clip(coords.astype(jnp.float32), 0.0, limit)
    index, _, fy, fx = corners(coords, h, w)
    rows = pad_corners(x)
    take = functools.partial(jnp.take, rows, axis=0, mode="clip")
    fy, fx = (cast(Array, _to_channels(f.astype(x.dtype), x.shape[-1])) for f in (fy, fx))
    top = (1 - fx) * take(index) + fx * take(index + 1)
    bottom = (1 - fx) * take(index + w + 2) + fx * take(index + w + 3)
    return (1 - fy) * top + fy * bottom


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _to_channels(x: Array, channels: int) -> Array:
    """Broadcasts [...] to [..., channels]; the gradient's sum is `sum_last`."""
    return jnp.broadcast_to(x[..., None], (*x.shape, channels))


def _to_channels_forward(x: Array, channels: int) -> tuple[Array, None]:
    return _to_channels(x, channels), None


def _to_channels_backward(channels: int, _: None, d_out: Array) -> tuple[Array]:
    return (sum_last(d_out).astype(d_out.dtype),)


_to_channels.defvjp(_to_channels_forward, _to_channels_backward)


def sample_rows(rows: Array, index: Array, fy: Array, fx: Array, *, right: int, down: int) -> Array:
    """Interpolates between the four rows that `corners` found for each position.

    rows: [n, c]. index, fy, fx: [p], as `corners` returns them; the rows beside and below an index
    lie `right` and `down` entries further (1 and width + 2 after `pad_corners`). Returns [p, c].
    """
    fy, fx = fy[:, None].astype(rows.dtype), fx[:, None].astype(rows.dtype)
    top_left, top_right, low_left, low_right = _neighbours(rows, index, right, down)
    top = (1 - fx) * top_left + fx * top_right
    return (1 - fy) * top + fy * ((1 - fx) * low_left + fx * low_right)


def sample_rows_backward(
    rows: Array,
    at: tuple[Array, Array, Array, Array],
    d_sampled: Array,
    d_rows: Array,
    *,
    right: int,
    down: int,
) -> tuple[Array, Array]:
    """Adds the rows' gradient to `d_rows`; returns it and the positions' gradient, [p, 2], (y, x).

    at: what `corners` returned, [p] each. d_sampled: [p, c], of `sample_rows`' result.
    """
    index, inside, fy, fx = at
    fy, fx = fy[:, None], fx[:, None]
    top_left, top_right, low_left, low_right = _neighbours(rows, index, right, down)
    slope_y = (1 - fx) * (low_left - top_left) + fx * (low_right - top_right)
    slope_x = (1 - fy) * (top_right - top_left) + fy * (low_right - low_left)
    d_place = jnp.stack([sum_last(d_sampled * slope) for slope in (slope_y, slope_x)], axis=-1)
    shares = [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]
    for move, share in zip((0, right, down, down + right), shares, strict=True):
        # Without the barrier XLA's loop over the rows computes all of the above again in each turn:
        # six times as slow on a CPU, and eight times as long to compile.
        update = jax.lax.optimization_barrier(share * d_sampled)
        d_rows = d_rows.at[index + move].add(update, mode="promise_in_bounds")
    return d_rows, jnp.where(inside[:, None], d_place, 0.0)


def sum_last(x: Array) -> Array:
    """Sums over the last axis in float32, as a matrix product.

    XLA's CPU backend hands sums of products to a library that cannot fetch, and that is slow at
    more than five axes: written as `sum`, the sums took four fifths of the network's alignment.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    ones = jnp.ones((x.shape[-1], 1), jnp.float32)
    return jnp.matmul(rows, ones, precision="float32").reshape(x.shape[:-1])


def _neighbours(rows: Array, index: Array, right: int, down: int) -> list[Array]:
    fetch = [index, index + right, index + down, index + down + right]
    return [rows.at[i].get(mode="promise_in_bounds") for i in fetch]


def pixel_grid(height: int, width: int) -> Array:
    """Returns the positions of all pixels, float32 [height, width, 2], (y, x)."""
    axes = jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


def warp(x: Array, flow: Array, *, border: Border = "zeros") -> Array:
    """Samples `x` where `flow` points: `warp(x, flow)[p] = x[p + flow[p]]`.

    x: [h, w, c]. flow: [h, w, 2], (dx, dy) in pixels. Returns [h, w, c] in x.dtype.
    """
    coords = pixel_grid(*x.shape[:2]) + flow[..., ::-1]
    return bilinear_sample(x, coords, border=border)


def compose_flows(first: Array, then: Array) -> Array:
    """Composes the flow a->b with the flow b->c into a->c: `first + warp(then, first)`.

    Both [h, w, 2], (dx, dy) in pixels; positions that leave the frame add no further motion.
    """
    return first + warp(then, first)
