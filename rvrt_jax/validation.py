"""Scores on held-out clips, during training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rvrt_jax import metrics
from rvrt_jax.data import degrade
from rvrt_jax.state import Params
from rvrt_jax.step import Apply

Clip = dict[str, Any]  # name, lq and gt, as `pipeline.validation` returns them
Scores = dict[str, dict[str, float]]  # of each clip, averaged over its frames


def score(
    predict: Apply, weights: Params, clips: list[Clip], *, stop: Callable[[], bool]
) -> Scores | None:
    """Scores the network on whole clips; None if `stop` turns true meanwhile."""
    scores = {}
    for clip in clips:
        if stop():
            return None
        output = np.clip(np.asarray(predict(weights, _to_float(clip["lq"])[None])[0]), 0, 1)
        scores[clip["name"]] = _score(np.round(output * 255).astype(np.uint8), clip["gt"])
    return scores


def bicubic(clips: list[Clip], *, scale: int) -> Scores:
    """Scores what training has to beat: MATLAB-style bicubic upscaling, at scale 1 the input."""
    scores = {}
    for clip in clips:
        lq = clip["lq"]
        if scale > 1:
            enlarged = degrade.imresize(lq, scale)
        else:
            enlarged = np.rint(_to_float(lq[..., :3]).clip(0, 1) * 255).astype(np.uint8)
        scores[clip["name"]] = _score(enlarged, clip["gt"])
    return scores


def mean(scores: Scores) -> dict[str, float]:
    """Averages over clips."""
    return _average(list(scores.values()))


def _to_float(lq: np.ndarray) -> np.ndarray:
    """Returns frames in [0, 1]; noisy ones are so already, but for their noise."""
    return lq.astype(np.float32) / 255 if lq.dtype == np.uint8 else lq


def _score(prediction: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """Averages the scores of the frames of a clip; both uint8 [t, h, w, 3]."""
    return _average([metrics.frame_scores(a, b) for a, b in zip(prediction, gt, strict=True)])


def _average(scores: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([each[key] for each in scores])) for key in scores[0]}
