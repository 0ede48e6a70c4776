"""A part of a clip, in the place of the whole: it begins later, or has fewer frames."""

import copy
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.image_folders import ImageReader
from rvrt_jax.media.video_reader import VideoReader

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")


def excerpt(
    source: FrameSource, start: str | None = None, frames: int | None = None
) -> FrameSource:
    """Returns a part of a clip: from `start` on, no more than `frames` frames.

    start: seconds ("12.5"), a time ("1:02:03.5"), or the number of a frame ("300f").
    Raises UserError for a start that is not such, or behind the last frame.
    """
    if start is None and frames is None:
        return source
    if frames is not None and frames < 1:
        raise UserError(f"frames is {frames}; give 1 or more.")
    if isinstance(source, VideoReader):
        return VideoExcerpt(source, start, frames)
    if not isinstance(source, ImageReader):
        raise UserError("a pipe is restored as a whole: leave start and frames out.")
    first = _first_frame(start, source.fps)
    part = copy.copy(source)
    stop = None if frames is None else first + frames
    part.files = source.files[first:stop]
    part.names = [file.name for file in part.files]
    part.length = len(part.files)
    if part.length == 0:
        raise UserError(f"{source.path} has {source.length} frames; none is left from {start} on.")
    return part


class VideoExcerpt(VideoReader):
    """A part of a video: its own times, and what lies beside the picture, begin at its start."""

    def __init__(self, whole: VideoReader, start: str | None, frames: int | None) -> None:
        """Decodes what comes before the start. Arguments as `excerpt`'s."""
        vars(self).update(vars(whole))
        self.is_excerpt = True
        self._first = self._find_first(start)
        before = whole.timing(self._first)[0]
        self.start = whole.start + before * self.clock
        self._before = before
        rest = self.length - self._first
        self.length = rest if frames is None else min(frames, rest)
        self.ends_early, self.decoded = self.length < rest, None

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        frames = super().__iter__()
        for frame in itertools.islice(frames, self._first, self._first + self.length):
            yield frame
            count += 1
        self.decoded = count

    def alphas(self) -> Iterator[np.ndarray]:
        return itertools.islice(super().alphas(), self._first, self._first + self.length)

    def timing(self, index: int) -> tuple[int, int]:
        stamp, duration = super().timing(self._first + index)
        return stamp - self._before, duration

    def _find_first(self, start: str | None) -> int:
        """Reads up to the first frame of the part, and returns its number."""
        wanted = None if start is None or start.endswith("f") else _seconds(start)
        number = _first_frame(start, None) if wanted is None else None
        for index, _ in enumerate(super().__iter__()):
            stamp, duration = VideoReader.timing(self, index)
            if index == number or (wanted is not None and (stamp + duration) * self.clock > wanted):
                return index
        raise UserError(
            f"{self.path} has {len(self._stamps)} frames, "
            f"{float(sum(VideoReader.timing(self, len(self._stamps) - 1)) * self.clock):.2f} s; "
            f"none is left from {start} on."
        )


def _first_frame(start: str | None, fps: Fraction | None) -> int:
    """Returns the number of the frame at a start, of images at their rate."""
    if start is None:
        return 0
    if re.fullmatch(r"\d+f", start):
        return int(start[:-1])
    if fps is None:
        raise UserError(
            f"start is {start} s, but images have no frame rate. Pass fps, or the number of a "
            "frame, such as 300f."
        )
    return int(_seconds(start) * fps)


def _seconds(time: str) -> Fraction:
    match: Any = _TIME.fullmatch(time)
    if match is None:
        raise UserError(
            f"start is {time!r}; give seconds (12.5), a time (1:02:03.5), or the number of a frame "
            "(300f)."
        )
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds
