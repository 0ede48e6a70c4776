"""What `restore` takes as a clip: an array, frames, or paths."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames

Path = str | os.PathLike
# A whole clip; a video file, folder or pattern; or its frames, each an array or an image file.
Frames = np.ndarray | Path | Iterable[Any]


def as_clip(frames: Frames) -> np.ndarray:
    """Returns a clip as one array, [t, h, w, 3].

    Raises UserError for frames of several shapes or types, no frames, a video among the frames, and
    what `open_frames` refuses.
    """
    if isinstance(frames, Path):
        with open_frames(frames) as source:
            return source.read_all()
    if hasattr(frames, "ndim"):  # an array of NumPy, JAX or another library
        clip = np.asarray(frames)
    else:
        clip = _stacked([_frame(frame, index) for index, frame in enumerate(frames)])
    if clip.ndim != 4:
        raise UserError(f"frames have shape {clip.shape}; give [t, h, w, 3].")
    return clip


def _frame(frame: Any, index: int) -> np.ndarray:
    if not isinstance(frame, Path):
        return np.asarray(frame)
    with open_frames(frame) as source:
        if source.length != 1:
            raise UserError(
                f"frame {index}, {os.fspath(frame)}, holds {source.length} frames; pass its path "
                "alone, not in a list."
            )
        return source.read_all()[0]


def _stacked(frames: list[np.ndarray]) -> np.ndarray:
    if not frames:
        raise UserError("there are no frames; give at least one.")
    first = frames[0]
    for index, frame in enumerate(frames):
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"frame {index} is {frame.shape} {frame.dtype}, frame 0 is {first.shape} "
                f"{first.dtype}; all frames of a video must be alike."
            )
    return np.stack(frames)
