"""Cutting a video into segments: the frames that are restored in one go.

Networks that take any number of frames get the published tiles in time. A window slides: its
segments are the next so many middle frames, with all frames that their windows need. Each scene
is cut as a video of its own.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Size
from rvrt_jax.restoration import sliding
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.restoration.tiling import time_tiles

WINDOWS_IN_A_GO = 16  # a tile has so many windows run before the next tile's turn


@dataclasses.dataclass(frozen=True)
class Segment:
    """Frames that are restored together. Frames are counted from the start of the video."""

    # The frames start to stop - 1 are finished once this segment is joined with those before it.
    start: int
    stop: int
    # What it reads, by number.
    frames: dict[int, np.ndarray]
    # Of each frame from start on the window that it is made of; None where nothing slides.
    windows: list[list[int]] | None
    # Whether a scene begins with it.
    opens_scene: bool

    @property
    def end(self) -> int:
        """The frame after the last one that this segment restores; it may be behind `stop`."""
        return self.start + (len(self.frames) if self.windows is None else len(self.windows))


def segments(
    scenes: Iterable[Iterable[np.ndarray]], model: Network, settings: RestoreSettings
) -> Iterator[Segment]:
    """Yields the segments of a video, scene by scene.

    settings: as `checked`, with a tile. Raises UserError if there are no frames.
    """
    tile, overlap = settings.tile_size, settings.overlap_size
    first = 0
    for scene in scenes:
        if model.window is None:
            found = _cut(scene, tile[0], overlap[0])
        else:
            border = settings.border or str(model.border)
            found = _slide(scene, model.window, border, windows_together(tile))
        stop = first
        for segment in found:
            segment = _moved(segment, first)
            stop = segment.stop
            yield segment
        first = stop
    if first == 0:
        raise UserError("the video has no frames; give at least one.")


def windows_together(tile: Size) -> int:
    """Returns how many windows a tile (windows at once, h, w) has run in one go.

    Features are kept for one tile at a time: more windows in a go means that fewer are computed
    again.
    """
    batch = tile[0] or 1
    return -(-WINDOWS_IN_A_GO // batch) * batch


def _cut(frames: Iterable[np.ndarray], tile: int, overlap: int) -> Iterator[Segment]:
    """Yields the tiles in time of a scene; one more than is yielded has been read."""
    before: tuple[int, list[np.ndarray]] | None = None
    for start, clip in time_tiles(frames, tile, overlap):
        if before is not None:
            yield _tile(*before, stop=start)
        before = start, clip
    assert before is not None
    start, clip = before
    yield _tile(start, clip, stop=start + len(clip))


def _tile(start: int, clip: Sequence[np.ndarray], *, stop: int) -> Segment:
    return Segment(start, stop, dict(enumerate(clip, start)), None, start == 0)


def _slide(frames: Iterable, window: int, border: str, count: int) -> Iterator[Segment]:
    start = 0
    for held, windows in sliding.windows(frames, window, border, count):
        needed = {index: held[index] for index in sorted({i for each in windows for i in each})}
        yield Segment(start, start + len(windows), needed, windows, start == 0)
        start += len(windows)


def _moved(segment: Segment, by: int) -> Segment:
    """Returns a segment of a scene that begins at frame `by`."""
    windows = segment.windows
    return dataclasses.replace(
        segment,
        start=segment.start + by,
        stop=segment.stop + by,
        frames={index + by: frame for index, frame in segment.frames.items()},
        windows=None if windows is None else [[i + by for i in each] for each in windows],
    )
