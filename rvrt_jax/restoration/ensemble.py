"""The orientations that self-ensemble runs a network in: flipped, and flipped and transposed."""

import itertools
from typing import TypeVar

import numpy as np
from jax import Array

Turn = tuple[bool, bool, bool]  # transpose, flip rows, flip columns
Video = TypeVar("Video", np.ndarray, Array)
# The first 4, without the transposed ones, are those of EDVR's published tests.
TURNS: tuple[Turn, ...] = tuple((t, r, c) for t, r, c in itertools.product((False, True), repeat=3))
ENSEMBLES = (1, 4, 8)


def turned(video: Video, turn: Turn) -> Video:
    """Transposes [t, h, w, c], then flips rows and columns, as `turn` says."""
    transpose, rows, columns = turn
    video = video.swapaxes(1, 2) if transpose else video
    return video[:, :: -1 if rows else 1, :: -1 if columns else 1]


def turned_back(video: Video, turn: Turn) -> Video:
    """Inverts `turned`."""
    transpose, rows, columns = turn
    video = turned(video, (False, rows, columns))
    return video.swapaxes(1, 2) if transpose else video
