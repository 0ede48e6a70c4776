"""What folders of images and video files have in common."""

import abc
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np

DTYPES = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16)}  # by bits


class FrameSource(abc.ABC):
    """The frames of a clip, read one by one; every iteration starts anew.

    Iterating yields [height, width, 3] RGB, uint8 (bits = 8) or uint16 (bits = 16).
    length: number of frames; of a video what the file announces, and a decoder may in rare cases
    give fewer. files: what is read. fps: None for images whose rate was not given. names: file
    names of images, None for a video. has_alpha: `alphas` gives opacity beside the frames.
    length_known: False for a pipe, which can be read once, and whose length is a guess.
    """

    path: Path
    files: Sequence[Path]
    length: int
    height: int
    width: int
    fps: Fraction | None
    bits: int
    names: list[str] | None
    has_alpha: bool = False
    length_known: bool = True

    @abc.abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]: ...

    def alphas(self) -> Iterator[np.ndarray]:
        """Yields the opacity of each frame, [height, width] in its dtype, if has_alpha."""
        return iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:  # noqa: B027
        """Does nothing: files are open only while an iteration runs."""

    def read_all(self) -> np.ndarray:
        """Returns all frames at once, [t, h, w, 3]: for short clips."""
        return np.stack(list(self))


def check_frame(frame: np.ndarray, index: int, *, shape: tuple[int, int, int], bits: int) -> None:
    """Raises ValueError if a frame to write is not what the output was opened for."""
    if frame.shape != shape or frame.dtype != DTYPES[bits]:
        raise ValueError(
            f"frame {index} is {frame.dtype} {list(frame.shape)}; the output was opened for "
            f"{DTYPES[bits]} {list(shape)}."
        )


def to_8_bit(frame: np.ndarray) -> np.ndarray:
    """Returns uint8 frames as they are and uint16 ones rounded to 8 bits."""
    return frame if frame.dtype == np.uint8 else np.rint(frame / 257).astype(np.uint8)
