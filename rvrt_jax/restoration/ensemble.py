"""The orientations that self-ensemble runs a network in: flipped, and flipped and transposed."""

import itertools

import numpy as np

Turn = tuple[bool, bool, bool]  # transpose, flip rows, flip columns
# The first 4, without the transposed ones, are those of EDVR's published tests.
TURNS: tuple[Turn, ...] = tuple((t, r, c) for t, r, c in itertools.product((False, True), repeat=3))
ENSEMBLES = (1, 4, 8)


def turned(video: np.ndarray, turn: Turn) -> np.ndarray:
    """Transposes [t, h, w, c], then flips rows and columns, as `turn` says; a view."""
    transpose, rows, columns = turn
    video = video.swapaxes(1, 2) if transpose else video
    return video[:, :: -1 if rows else 1, :: -1 if columns else 1]


def turned_back(video: np.ndarray, turn: Turn) -> np.ndarray:
    """Inverts `turned`."""
    transpose, rows, columns = turn
    video = turned(video, (False, rows, columns))
    return video.swapaxes(1, 2) if transpose else video
