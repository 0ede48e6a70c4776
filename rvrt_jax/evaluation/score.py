"""Restoring frames and scoring them, for all that do both.

As published: on frames clamped to [0, 1] and rounded to 8 bit, with no border cropped.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from rvrt_jax.evaluation.metrics import frame_scores
from rvrt_jax.media.frames import to_float, to_uint
from rvrt_jax.models.contract import Network, Params
from rvrt_jax.restoration.restore import restore_stream
from rvrt_jax.restoration.settings import RestoreSettings


@dataclasses.dataclass(frozen=True)
class ScoredFrame:
    """A restored frame and the true one, uint8 RGB [h, w, 3], and its scores by name."""

    restored: np.ndarray
    truth: np.ndarray
    scores: dict[str, float]


def score_frame(restored: np.ndarray, truth: np.ndarray) -> ScoredFrame:
    """Scores a frame against the true one: each [h, w, 3], integers, or float in [0, 1]."""
    restored, truth = to_8_bits(restored), to_8_bits(truth)
    return ScoredFrame(restored, truth, frame_scores(restored, truth))


def restore_and_score(
    model: Network,
    params: Params,
    frames: Iterable[np.ndarray],
    truth: Iterable[np.ndarray],
    settings: RestoreSettings,
    *,
    progress: Callable[[float], None] | None = None,
) -> Iterator[ScoredFrame]:
    """Restores a clip as `restore_stream` does, and scores each frame against the true one.

    Raises ValueError if there are not as many true frames as frames.
    """
    restored = restore_stream(model, params, frames, settings, progress=progress)
    return (score_frame(one, true) for one, true in zip(restored, truth, strict=True))


def to_8_bits(frame: np.ndarray) -> np.ndarray:
    """Returns a frame, of integers or float in [0, 1], clamped and rounded to uint8."""
    if frame.dtype == np.uint8:
        return frame
    return to_uint(to_float(frame) if frame.dtype.kind == "u" else frame, 8)
