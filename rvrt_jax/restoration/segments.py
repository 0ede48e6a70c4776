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
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.restoration.sliding import frame_indices
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
    tile, overlap = settings.tile, settings.overlap
    assert isinstance(tile, tuple) and isinstance(overlap, tuple)
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
    for held, windows in windows_of(frames, window, border, count):
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


def windows_of(
    frames: Iterable, window: int, border: str, batch: int
) -> Iterator[tuple[dict[int, np.ndarray], list[list[int]]]]:
    """Yields (frames by index, the windows of up to `batch` further centres) along a video.

    frames: any number of them. Holds no more than 2 * window + batch frames: those that these or
    later windows need. Raises UserError if there are none.
    """
    source = iter(frames)
    held: dict[int, np.ndarray] = {}
    read, centre, length = 0, 0, None
    while length is None or centre < length:
        # A rule may look a whole window back or forth, near the ends of the clip.
        wanted = max(centre + batch - 1 + window // 2, window - 1)
        while length is None and read <= wanted:
            frame = next(source, None)
            if frame is None:
                length = read
            else:
                held[read] = frame
                read += 1
        if read == 0:
            raise UserError("the video has no frames; give at least one.")
        # As long as the end is unknown it lies beyond all these windows.
        known = wanted + 1 if length is None else length
        stop = centre + batch if length is None else min(centre + batch, length)
        if stop == centre:  # the end came just where a batch ended
            return
        yield held, [frame_indices(c, known, window, border) for c in range(centre, stop)]
        centre = stop
        for old in [index for index in held if index < centre - window]:
            del held[old]
