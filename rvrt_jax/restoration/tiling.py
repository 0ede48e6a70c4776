"""Cutting a video into overlapping tiles, and joining what comes back, as published for RVRT.

Tiles of an axis of length `size` begin at `0, s, 2s, ...` below `size - tile`, s = tile - overlap,
and at `max(0, size - tile)`. Tiles in time are averaged where they overlap. Tiles in space first
lose `overlap // 2` *output* pixels on each side that has a neighbour (not multiplied by the scale,
as published); what still overlaps is averaged. A tile of 0 means the whole axis.

Results are joined on the device that made them.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Size
from rvrt_jax.restoration import programs


@dataclasses.dataclass(frozen=True)
class Span:
    """One tile of one spatial axis: input pixels `read`, of whose output only `kept` is used.

    `kept` counts output pixels from the start of the axis.
    """

    read: slice
    kept: slice
    scale: int

    @property
    def piece(self) -> slice:
        """Where `kept` lies within the tile's own output."""
        offset = self.read.start * self.scale
        return slice(self.kept.start - offset, self.kept.stop - offset)


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Returns where the tiles of an axis begin; they have min(tile, size) elements each."""
    return [*range(0, size - tile, tile - overlap), max(0, size - tile)]


def spans(size: int, tile: int, overlap: int, scale: int) -> list[Span]:
    """Returns the tiles of a spatial axis of `size` input pixels."""
    if tile == 0:
        return [Span(slice(0, size), slice(0, size * scale), scale)]
    trim = overlap // 2
    first = starts(size, tile, overlap)
    result = []
    for start in first:
        stop = min(start + tile, size)
        kept_start = start * scale + (trim if start > 0 else 0)
        kept_stop = stop * scale - (trim if start < first[-1] else 0)
        result.append(Span(slice(start, stop), slice(kept_start, kept_stop), scale))
    return result


def cover(tiles: list[Span]) -> np.ndarray:
    """Returns how many tiles keep each output pixel of an axis, float32 [scale * size]."""
    count = np.zeros(tiles[-1].kept.stop, np.float32)
    for span in tiles:
        count[span.kept] += 1
    return count


def join_space(rows: list[Span], columns: list[Span], pieces: Iterable[Array]) -> Array:
    """Joins the restored tiles of a plane, row by row: [t, scale * H, scale * W, c], float32.

    pieces: [t, h, w, c] of each tile, on one device.
    """
    if len(rows) == len(columns) == 1:
        (piece,) = pieces
        return piece
    row_count, column_count = cover(rows), cover(columns)
    out = None
    for (row, column), piece in zip(places(rows, columns), pieces, strict=True):
        if out is None:
            shape = (len(piece), len(row_count), len(column_count), piece.shape[-1])
            out = jnp.zeros(shape, jnp.float32, device=next(iter(piece.devices())))
        counts = row_count[row.kept], column_count[column.kept]
        piece = piece[:, row.piece, column.piece]
        out = programs.add_piece(out, piece, (row.kept.start, column.kept.start), counts)
    assert out is not None
    return out


def places(rows: list[Span], columns: list[Span]) -> list[tuple[Span, Span]]:
    """Returns the tiles of a plane, row by row."""
    return [(row, column) for row in rows for column in columns]


def time_tiles(frames: Iterable, tile: int, overlap: int) -> Iterator[tuple[int, list]]:
    """Yields (start, frames) for each tile in time of a video whose length need not be known.

    Holds at most 2 * tile - overlap frames. Raises UserError if there are no frames.
    """
    if tile == 0:
        held = list(frames)
        if not held:
            raise UserError("the video has no frames; give at least one.")
        yield 0, held
        return
    step = tile - overlap
    held, base, start, size = [], 0, 0, 0
    for frame in frames:
        held.append(frame)
        size += 1
        if size == start + tile + 1:  # a frame beyond this tile: so it is not the last one
            yield start, held[start - base : start - base + tile]
            # The last tile, wherever it will have to begin, begins after this one.
            held, base, start = held[start + 1 - base :], start + 1, start + step
    if size == 0:
        raise UserError("the video has no frames; give at least one.")
    last = max(0, size - tile)
    yield last, held[last - base :]


def join_time(blocks: Iterable[tuple[int, int, Array]]) -> Iterator[Array]:
    """Averages the frames that tiles in time share; yields frames as they are finished.

    blocks: (start, stop, frames) of each tile of `time_tiles`, restored, [t, h, w, c]; those from
    start to stop - 1 are in no later tile. Only frames that a later tile shares are held on.
    """
    shared, shared_count = None, np.zeros(0, np.float32)
    for start, stop, block in blocks:
        count = np.ones(len(block), np.float32)
        if shared is not None:
            shared = jax.device_put(shared, next(iter(block.devices())))
            block = programs.add_shared(block, shared)
            count[: len(shared)] += shared_count
        done = stop - start
        averaged = min(len(shared_count), done)
        shared, shared_count = None, count[done:]
        if done < len(block):
            block, shared = block[:done], block[done:]
        yield programs.mean(block, count[:averaged]) if averaged else block
        del block


def call_shape(model: Network, tile: Size, size: Size) -> Size:
    """Returns (t, h, w) of one call of the network, padding included; windows for t if they slide.

    tile, size: (frames, height, width). A whole axis in space is padded to `model.pad_multiple`,
    as published; a tile only where it does not fit the network (published tiles are never padded).
    """
    whole = (model.time_multiple, model.pad_multiple, model.pad_multiple)
    tiled = (model.time_multiple, model.size_multiple, model.size_multiple)
    result = []
    for n, length, multiple, least in zip(tile, size, whole, tiled, strict=True):
        multiple = multiple if n == 0 else least
        length = min(n or length, length)
        result.append(-(-length // multiple) * multiple)
    if model.window is not None:
        result[0] = tile[0] or 1
    return tuple(result)
