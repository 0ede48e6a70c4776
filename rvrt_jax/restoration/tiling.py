"""Cutting a video into overlapping tiles, and joining what comes back, as published for RVRT.

Tiles of an axis of length `size` begin at `0, s, 2s, ...` below `size - tile`, s = tile - overlap,
and at `max(0, size - tile)`. Tiles in time are averaged where they overlap. Tiles in space first
lose `overlap // 2` *output* pixels on each side that has a neighbour (not multiplied by the scale,
as published); what still overlaps is averaged. A tile of 0 means the whole axis.

A model with a `window` slides along the time axis instead of cutting it: there the first number of
a tile is how many windows go through the network at once, 0 for one.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from rvrt_jax.errors import UserError

AXES = ("frames", "height", "width")


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


def check_tile(tile, overlap) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Returns (tile, overlap) as two triples (frames, height, width) of ints.

    tile: None for the whole video, or three numbers, 0 for a whole axis. Raises UserError for
    anything but three whole numbers >= 0, and for a tile that does not exceed its overlap.
    """
    tile = (0, 0, 0) if tile is None else tile
    checked = []
    for what, numbers in (("tile", tile), ("overlap", overlap)):
        numbers = tuple(numbers) if isinstance(numbers, Iterable) else (numbers,)
        whole = all(not isinstance(n, str) and int(n) == n and n >= 0 for n in numbers)
        if len(numbers) != 3 or not whole:
            raise UserError(
                f"{what} is {numbers}; give three whole numbers >= 0: frames, height, width."
            )
        checked.append(tuple(int(n) for n in numbers))
    tile, overlap = checked
    for axis, size, shared in zip(AXES, tile, overlap, strict=True):
        if 0 < size <= shared:
            raise UserError(
                f"tile of {size} does not exceed its overlap of {shared} ({axis}). "
                f"Pass a tile of at least {shared + 1}, 0 for the whole axis, or a smaller overlap."
            )
    return tile, overlap


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


def blend_space(rows: list[Span], columns: list[Span], run: Callable) -> np.ndarray:
    """Runs all tiles of a plane and joins them; `run(rows, columns)` takes two slices of the input.

    run returns [t, h, w, c] for its tile; the result is float32 [t, scale * H, scale * W, c].
    """
    if len(rows) == len(columns) == 1:
        return np.array(run(rows[0].read, columns[0].read))  # writable
    row_count, column_count = cover(rows), cover(columns)
    out = np.zeros(0, np.float32)
    for row in rows:
        for column in columns:
            piece = run(row.read, column.read)[:, row.piece, column.piece]
            if out.size == 0:
                shape = (len(piece), len(row_count), len(column_count), piece.shape[-1])
                out = np.zeros(shape, np.float32)
            # The number of tiles over a pixel is a product of the two axes' numbers, so that no
            # second full-size accumulator is needed.
            count = row_count[row.kept, None] * column_count[None, column.kept]
            out[:, row.kept, column.kept] += piece / count[..., None]
    return out


def windows(frames: Iterable, tile: int, overlap: int) -> Iterator[tuple[int, list]]:
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


def blend_time(tiles: Iterable[tuple[int, list]], run: Callable) -> Iterator[np.ndarray]:
    """Runs every tile of `windows` and yields blocks of frames, in order, as they are finished.

    run(start, frames) returns float32 [t, h, w, c], which is overwritten: frames that several tiles
    share are averaged. Only the frames that a later tile may still touch stay in memory.
    """
    held, count, first = np.zeros((0, 1, 1, 1), np.float32), np.zeros((0, 1, 1, 1), np.float32), 0
    for start, frames in tiles:
        done = start - first
        if done:
            held[:done] /= count[:done]
            yield held[:done]
        shared, shared_count = held[done:].copy(), count[done:]
        del held  # frees all but the shared frames before the next tile needs the memory
        held = run(start, frames)
        count = np.ones((len(held), 1, 1, 1), np.float32)
        if len(shared):
            held[: len(shared)] += shared
            count[: len(shared)] += shared_count
        first = start
    held /= count
    yield held


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bytes that may be used: the device's, the host's, and whether they are the same memory."""

    device: int
    host: int
    shared: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """A tile (frames, height, width; 0 = whole axis) and what it is expected to take.

    call: what the network gets; calls: how often.
    """

    tile: tuple[int, int, int]
    overlap: tuple[int, int, int]
    call: tuple[int, int, int]
    calls: int
    device_bytes: int
    host_bytes: int

    def __str__(self) -> str:
        sizes = " x ".join(str(n) if n else "whole" for n in self.tile)
        if any(self.tile):
            tile = f"tile {sizes} (frames x height x width), overlap {self.overlap}"
        else:
            tile = "whole video at once"
        return (
            f"{tile}: {self.device_bytes / 2**30:.2f} GiB for the network, "
            f"{self.host_bytes / 2**30:.2f} GiB for the frames"
        )


def call_shape(model, tile, size) -> tuple[int, int, int]:
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


# Floats that one call needs per pixel at working resolution: whatever the width (flow, tail), for
# each feature channel (one clip's attention), and for each channel and frame (features kept for
# later branches). Fitted to the compiler's figures for float32 RVRT of widths 36, 144 and 192 on a
# CPU, within 15 % from 8 frames on. It need not be exact: `restore.plan_tiles` asks the compiler.
FLOATS_FIXED, FLOATS_PER_CHANNEL, FLOATS_PER_FRAME = 2600, 105, 11
# The same for windows: for each feature channel (alignment of one frame) and frame of the window
# (its features, as they are and aligned), and whatever the width (the tail).
FLOATS_SLIDING, FLOATS_PER_WINDOW, FLOATS_TAIL = 20, 4, 2600


def device_bytes(model, call: tuple[int, int, int]) -> int:
    """Estimates the bytes that one call of the network takes for (t, h, w) input pixels."""
    t, h, w = call
    if model.window is not None:
        pixels = h * w if model.scale > 1 else h * w / 16
        features = model.num_feat * (FLOATS_SLIDING + FLOATS_PER_WINDOW * model.window)
        return int(4 * t * pixels * (features + FLOATS_TAIL))
    channels = max(model.embed_dims) if hasattr(model, "embed_dims") else model.num_feat
    pixels = h * w if model.scale > 1 else h * w / 16  # at scale 1 features are of a quarter size
    features = FLOATS_FIXED + channels * (FLOATS_PER_CHANNEL + FLOATS_PER_FRAME * t)
    frames = t * h * w * (model.in_channels + 3 * model.scale**2)
    return int(4 * (pixels * features + frames))


def host_bytes(model, tile, overlap, size) -> int:
    """Returns the bytes of the frames held at once, read and restored, of a tile in time."""
    length, height, width = size
    if model.window is None:
        frames = min(tile[0] or length, length)
    else:
        frames = windows_together(tile) + model.window
    read = 2 * frames * height * width * 3 * 2  # of this tile and the next, of 16 bits at most
    # The frames themselves, what they share with the next tile, and what a call returns.
    restored = frames + overlap[0] * (tile[0] > 0) + frames * (tile[1] == tile[2] == 0)
    return read + restored * height * width * model.scale**2 * 3 * 4


WINDOWS_A_TILE = 16  # a tile in space has this many windows run before the next tile's turn


def windows_together(tile) -> int:
    """Returns how many windows a tile (windows at once, h, w) has run in one go.

    Features are kept for one tile at a time; more windows in a go means that fewer are made anew.
    """
    batch = tile[0] or 1
    return -(-WINDOWS_A_TILE // batch) * batch if any(tile[1:]) else batch


TIMES = (100, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)  # at most what was published
SIDES = (1024, 768, 512, 384, 256, 192, 160, 128, 96, 64, 48, 32)
# Frames next to a cut in time lack half of what the recurrence lives on. To make long tiles worth
# some work, each is charged as if it had so many frames more.
CUT_PRICE = 8


def plan_auto(model, size, budget: Budget, *, overlap=(2, 20, 20), correction=1.0) -> Plan:
    """Chooses the tile that restores a video of `size` with the least work within `budget`.

    size: (frames, height, width). correction: measured bytes of an earlier plan over its estimate.
    Raises UserError if nothing fits.
    """
    shape = (model.time_multiple, model.pad_multiple, model.pad_multiple)
    tiles = {
        tuple(_even(*axis) for axis in zip(size, (time, side, side), overlap, shape, strict=True))
        for time in (TIMES if model.window is None else (1,))
        for side in (max(size[1:]), *SIDES)
        if overlap[0] < time and max(overlap[1:]) < side
    }
    plans = [plan_tile(model, tile, overlap, size, correction) for tile in sorted(tiles)]
    fitting = [p for p in plans if fits(p, budget)]
    if not fitting:
        least = min(plans, key=lambda p: p.device_bytes + p.host_bytes)
        raise UserError(
            f"no tile fits the memory: the smallest is {least}; free are "
            f"{budget.device / 2**30:.1f} GiB for the network and {budget.host / 2**30:.1f} GiB "
            f"for the frames. Free some memory, or pass the tile yourself."
        )
    return min(fitting, key=_work)


def _work(plan: Plan) -> int:
    """Returns the pixels that all calls compute, the price of cuts in time included."""
    t, h, w = plan.call
    return plan.calls * (t + CUT_PRICE) * h * w


def _even(size: int, tile: int, overlap: int, multiple: int) -> int:
    """Returns the smallest tile that makes as few cuts as `tile` does; 0 if that is none."""
    if tile >= size:
        return 0
    count = _count(size, tile, overlap)
    return -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple


def _count(size: int, tile: int, overlap: int) -> int:
    """Returns the number of `starts`, 1 for a whole axis."""
    return -(-(size - tile) // (tile - overlap)) + 1 if 0 < tile < size else 1


def plan_tile(model, tile, overlap, size, correction: float = 1.0) -> Plan:
    """Returns the plan of a given tile. Arguments as `plan_auto`'s."""
    call = call_shape(model, tile, size)
    if model.window is not None:
        overlap = 0, overlap[1], overlap[2]
        tile = tile[0] or 1, tile[1], tile[2]
    calls = math.prod(_count(*axis) for axis in zip(size, tile, overlap, strict=True))
    device = int(correction * device_bytes(model, call))
    host = host_bytes(model, tile, overlap, size)
    return Plan(tile, overlap, call, calls, device, host)


def fits(plan: Plan, budget: Budget) -> bool:
    """Returns whether the plan stays within the budget."""
    if budget.shared:
        return plan.device_bytes + plan.host_bytes <= min(budget.device, budget.host)
    return plan.device_bytes <= budget.device and plan.host_bytes <= budget.host
