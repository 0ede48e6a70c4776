"""Scores of restored clips against ground truth, and how they are shown.

As published: on frames clamped and rounded to 8 bit, no border cropped, averaged over the frames of
a clip and then over clips.
"""

import json
import math

import numpy as np

from rvrt_jax.data.degrade import imresize
from rvrt_jax.evaluation import metrics
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.media.frames import to_float, to_uint

METRICS = {"psnr_rgb": "PSNR", "ssim_rgb": "SSIM", "psnr_y": "PSNR-Y", "ssim_y": "SSIM-Y"}


class Scores:
    """The scores of a clip, frame by frame, and the frame that its picture shows."""

    def __init__(self, scale: int, *, shown: int) -> None:
        self.frames = 0
        self._scale = scale
        self._shown = shown
        self._scores: dict[str, list[dict[str, float]]] = {}
        self._panels: list[tuple[str, np.ndarray]] = []

    def add(self, original: np.ndarray, restored: np.ndarray, true: np.ndarray | None) -> None:
        """Takes the next frame: input and ground truth as read, the restored one as float."""
        shown = self.frames == self._shown
        self.frames += 1
        if true is None and not shown:
            return
        baseline = to_uint(to_float(original), 8)
        if self._scale > 1:
            baseline = imresize(baseline, self._scale)
        versions = {self.baseline: baseline, "restored": to_uint(restored, 8)}
        labels = {self.baseline: f"input, bicubic x{self._scale}" if self._scale > 1 else "input"}
        panels = []
        if true is not None:
            true = to_uint(to_float(true), 8)
        for name, image in versions.items():
            label = labels.get(name, name)
            if true is not None:
                scores = metrics.frame_scores(image, true)
                self._scores.setdefault(name, []).append(scores)
                label += f", {scores['psnr_rgb']:.2f} dB"
            panels.append((label, image))
        if shown:
            self._panels = panels + ([("ground truth", true)] if true is not None else [])

    @property
    def baseline(self) -> str:
        """What the restored frames are held against: the input, upscaled if need be."""
        return "bicubic" if self._scale > 1 else "input"

    def summary(self) -> dict:
        """Returns {"scores": {version: {metric: mean over frames}}}, or {} without ground truth."""
        return {"scores": {k: mean(v) for k, v in self._scores.items()}} if self._scores else {}

    def picture(self) -> np.ndarray:
        """Returns the side-by-side picture of the frame in the middle."""
        return compare.picture(self._panels)


def mean(scores: list[dict[str, float]]) -> dict[str, float]:
    """Returns the average of dictionaries with the same keys."""
    return {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}


def summarise(clips: list[dict]) -> dict:
    """Returns {} or {"mean": ...} over clips and {"mean_of_frames": ...} over all frames.

    The two differ where clips differ in length; papers report one or the other.
    """
    scored = [clip for clip in clips if "scores" in clip]
    if not scored:
        return {}
    frames = sum(clip["frames"] for clip in scored)
    by_clip, by_frame = {}, {}
    for version in scored[0]["scores"]:
        by_clip[version] = mean([clip["scores"][version] for clip in scored])
        by_frame[version] = {
            metric: sum(clip["scores"][version][metric] * clip["frames"] for clip in scored)
            / frames
            for metric in METRICS
        }
    return {"mean": by_clip, "mean_of_frames": by_frame}


def table(clips: list[dict], summary: dict) -> str:
    """Returns the scores as text: a line per clip and version, then their means if they differ."""
    rows = [(clip["name"], clip["scores"]) for clip in clips]
    if len(clips) > 1:
        rows.append(("mean", summary["mean"]))
    if len({clip["frames"] for clip in clips}) > 1:
        rows.append(("mean of all frames", summary["mean_of_frames"]))
    width = max(4, *(len(name) for name, _ in rows))
    lines = [f"{'clip':{width}}  {'':8}" + "".join(f"{title:>9}" for title in METRICS.values())]
    for name, versions in rows:
        for version, scores in versions.items():
            numbers = (f"{scores[m]:9.{2 if 'psnr' in m else 4}f}" for m in METRICS)
            lines.append(f"{name:{width}}  {version:8}" + "".join(numbers))
    return "\n".join(lines)


def to_json(report: dict) -> str:
    """Returns a report as JSON text; infinite numbers (the PSNR of equal frames) become null."""
    return json.dumps(_finite(report), indent=2, allow_nan=False) + "\n"


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
