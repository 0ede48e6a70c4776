"""Scores and pictures of held-out clips, during training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rvrt_jax import parallel
from rvrt_jax.data import degrade
from rvrt_jax.evaluation import metrics
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.evaluation.score import restore_and_score
from rvrt_jax.media.frames import to_uint
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.training import hosts
from rvrt_jax.training.state import Params

Clip = dict[str, Any]  # name, lq and gt, as `pipeline.validation` returns them
Scores = dict[str, dict[str, float]]  # of each clip, averaged over its frames

TILE = (0, 128, 128)  # in LR pixels, as the papers test on REDS4: keeps large frames in memory
CROP = 96  # pixels of the ground truth that a picture shows of a clip, each way
GAP = 4


@dataclasses.dataclass(frozen=True)
class Result:
    """scores: of each clip. picture: uint8 RGB, a row per clip of this host: input, output, GT."""

    scores: Scores
    picture: np.ndarray | None


def score(
    model: Any, weights: Params, clips: list[Clip], *, stop: Callable[[], bool]
) -> Result | None:
    """Scores the network on whole clips, which all hosts and devices share out among them.

    Returns None if `stop` turns true meanwhile, which must not differ between hosts.
    """
    mine = range(jax.process_index(), len(clips), jax.process_count())

    def run(device: parallel.Device, index: int) -> tuple[dict[str, float], np.ndarray] | None:
        if stop():
            return None
        clip = clips[index]
        frames, level = clip["lq"][..., :3], clip["lq"][..., 3:]
        sigma = 255 * float(level.flat[0]) if level.size else None
        settings = RestoreSettings(tile=TILE, sigma=sigma)
        weights_here = jax.device_put(weights, device)
        scored = list(restore_and_score(model, weights_here, frames, clip["gt"], settings))
        restored = np.stack([frame.restored for frame in scored])
        scores = metrics.mean([frame.scores for frame in scored])
        return scores, _row(clip, restored, model.scale)

    found = hosts.agree(lambda: parallel.share_devices(run, mine))
    done = [one for one in found if one is not None]
    if len(done) < len(found):
        return None
    names = list(metrics.METRICS)
    table = np.zeros((len(clips), len(names)))
    for index, (scores, _) in zip(mine, done, strict=True):
        table[index] = [scores[name] for name in names]
    table = parallel.sum_over_hosts(table)
    scores = {
        clip["name"]: dict(zip(names, map(float, row), strict=True))
        for clip, row in zip(clips, table, strict=True)
    }
    return Result(scores, _stack([row for _, row in done]))


def bicubic(clips: list[Clip], *, scale: int) -> Scores:
    """Scores MATLAB-style bicubic upscaling (at scale 1 the input): what training has to beat."""
    return {clip["name"]: _score(_enlarged(clip["lq"], scale), clip["gt"]) for clip in clips}


def mean(scores: Scores) -> dict[str, float]:
    """Averages over clips."""
    return metrics.mean(list(scores.values()))


def _score(prediction: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """Averages the scores of the frames of a clip; both uint8 [t, h, w, 3]."""
    pairs = zip(prediction, gt, strict=True)
    return metrics.mean([metrics.frame_scores(one, true) for one, true in pairs])


def _enlarged(lq: np.ndarray, scale: int) -> np.ndarray:
    """Returns the input as uint8 at the size of the output, noise clipped."""
    lq = lq if lq.dtype == np.uint8 else to_uint(lq[..., :3], 8)
    return lq if scale == 1 else degrade.imresize(lq, scale)


def _row(clip: Clip, restored: np.ndarray, scale: int) -> np.ndarray:
    """Returns the most detailed part of the middle frame: input, output, ground truth."""
    at = len(restored) // 2
    gt = clip["gt"][at]
    detail = compare.most_detailed(gt)
    top, left = (
        min(max(0, (part.start + part.stop - CROP) // 2), max(0, size - CROP))
        for part, size in zip(detail, gt.shape, strict=False)
    )
    versions = (_enlarged(clip["lq"][at : at + 1], scale)[0], restored[at], gt)
    row = np.zeros((CROP, 3 * CROP + 2 * GAP, 3), np.uint8)
    for i, image in enumerate(versions):
        crop = image[top : top + CROP, left : left + CROP]
        start = i * (CROP + GAP)
        row[: crop.shape[0], start : start + crop.shape[1]] = crop
    return row


def _stack(rows: list[np.ndarray]) -> np.ndarray | None:
    if not rows:
        return None
    gap = np.zeros((GAP, *rows[0].shape[1:]), np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1])
