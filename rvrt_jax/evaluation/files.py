"""From files to files: restores clips, scores them against ground truth, pictures them."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvrt_jax.data.degrade import imresize
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import picture as pictures
from rvrt_jax.evaluation import report as reports
from rvrt_jax.evaluation.clips import ClipFiles, ReadOptions, check_clip, check_paths, find_clips
from rvrt_jax.evaluation.metrics import mean, psnr
from rvrt_jax.evaluation.score import PSNR, SSIM, ClipScores, networks, to_8_bits
from rvrt_jax.files import check_free, is_taken, write_text
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.frames import PIPE, describe
from rvrt_jax.restoration.clip import OutputOptions, Stages, check_second, put_on_device
from rvrt_jax.restoration.clip import restore_clip as restore_file
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import load as loading


class Comparison:
    """The scores of a clip frame by frame, against the input too, and its picture."""

    def __init__(
        self,
        clip: ClipFiles,
        truth: FrameSource | None,
        scale: int,
        *,
        shown: int,
        measure: Callable[[], ClipScores] = ClipScores,
    ) -> None:
        """shown: number of the frame that the picture shows. measure: makes what scores a clip."""
        self.frames = 0
        self._clip, self._scale, self._shown = clip, scale, shown
        self._truth = None if truth is None else iter(truth)
        # What the restored frames are held against: the input, enlarged if need be.
        self._baseline = "bicubic" if scale > 1 else "input"
        self._scores: dict[str, list[dict[str, float]]] = {}
        self._measures = {name: measure() for name in (self._baseline, "restored")}
        self._panels: list[tuple[str, np.ndarray]] = []

    def add(self, original: np.ndarray, restored: np.ndarray) -> None:
        """Takes the next frame; raises UserError if there is no ground truth for it."""
        true = None if self._truth is None else next(self._truth, None)
        if self._truth is not None and true is None:
            files = f"{self._clip.gt} has only {self.frames} frames, its input {self._clip.input}"
            raise UserError(f"{files} more.")
        shown = self.frames == self._shown
        self.frames += 1
        if true is None and not shown:
            return
        baseline = to_8_bits(original)
        if self._scale > 1:
            baseline = imresize(baseline, self._scale)
        labels = {self._baseline: "input" + f", bicubic x{self._scale}" * (self._scale > 1)}
        panels = []
        for name, image in ((self._baseline, baseline), ("restored", to_8_bits(restored))):
            label = labels.get(name, name)
            if true is not None:
                scores = self._measures[name].add(image, true).scores
                self._scores.setdefault(name, []).append(scores)
                if shown:
                    label += f", {psnr(image, to_8_bits(true)):.2f} dB"
            panels.append((label, image))
        if shown:
            truth = [("ground truth", to_8_bits(true))] if true is not None else []
            self._panels = panels + truth

    def end(self) -> None:
        """Raises UserError if ground truth is left over."""
        if self._truth is not None and next(self._truth, None) is not None:
            raise UserError(
                f"{self._clip.gt} has more frames than the {self.frames} of its input "
                f"{self._clip.input}."
            )

    def summary(self) -> dict:
        """Returns {"scores": {version: {metric: mean over frames}}}, or {} without ground truth."""
        return {"scores": {k: mean(v) for k, v in self._scores.items()}} if self._scores else {}

    def write_picture(self, path: str) -> bool:
        """Writes the versions of the chosen frame side by side; False if that frame was not read.

        A broken video can end before it.
        """
        if self._panels:
            pictures.write(path, pictures.picture(self._panels))
        return bool(self._panels)


def model_fields(config: Any, *, dtype: str | None) -> tuple[str | None, dict]:
    """Returns the name and fields of a recipe's model; (None, ...) leaves the name to the weights.

    dtype: computes in this type instead of the recipe's.
    """
    fields = {} if config is None else config.model.to_dict()
    if dtype is not None:
        fields["dtype"] = dtype
    return fields.pop("name", None), fields


def parse_triple(text: str, flag: str) -> tuple[int, int, int]:
    """Returns "T,H,W" as three numbers; raises UserError naming the flag."""
    try:
        t, h, w = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"--{flag} is {text}; give three numbers T,H,W, such as 2,20,20."
        ) from error
    return t, h, w


def parse_tile(text: str) -> tuple[int, int, int] | str | None:
    """Returns the value of --tile: "auto", None for "none", or three numbers."""
    named: dict[str, str | None] = {"auto": "auto", "none": None}
    return named[text] if text in named else parse_triple(text, "tile")


def restore_clip(
    stages: Stages,
    clip: ClipFiles,
    settings: RestoreSettings,
    reading: ReadOptions,
    options: OutputOptions,
    *,
    measure: Callable[[], ClipScores] = ClipScores,
) -> dict:
    """Restores one clip to its output, as `restoration.clip.restore_clip` does, and scores it.

    Returns {name, frames, seconds, tile, overlap, left_out}, with ground truth also
    {scores: {bicubic or input: {psnr_rgb, ...}, restored: {...}}} of what `measure` makes, for EDVR
    {told: {offset_mean, offset_max}}, the mean and the largest of the clip in pixels, and
    told_by_stage2 if that is one.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(reading.open(clip.input))
        truth = stack.enter_context(reading.open_truth(clip.gt)) if clip.gt is not None else None
        check_clip(clip, source, truth, stages.scale)
        shown = source.length // 2
        comparison = Comparison(clip, truth, stages.scale, shown=shown, measure=measure)
        watched = truth is not None or clip.picture is not None
        if watched and options.reduces:
            raise UserError("scores and pictures are of the network's own size: give no other.")
        outcome = restore_file(
            stages,
            source,
            clip.output,
            settings,
            options,
            name=clip.name,
            watcher=comparison if watched else None,
        )
    if clip.picture is not None and not comparison.write_picture(clip.picture):
        print(
            f"{clip.picture}: not written, since the frame in the middle could not be read.",
            file=sys.stderr,
        )
    facts = {"name": clip.name, "frames": outcome.frames, "seconds": outcome.seconds}
    facts |= {"tile": outcome.plan.tile, "overlap": outcome.plan.overlap}
    facts |= {"left_out": outcome.left_out}
    first, second = outcome.diagnostics
    facts |= _summary_of("told", first, clip.name)
    facts |= _summary_of("told_by_stage2", second, f"{clip.name}, second stage")
    return facts | comparison.summary()


def _summary_of(key: str, diagnostics: dict[str, list], name: str) -> dict:
    """Returns {key: {...}} of what a model says of itself, and prints it; {} if nothing."""
    if not diagnostics:
        return {}
    merged = {
        key: float(max(values) if key.endswith("max") else sum(values) / len(values))
        for key, values in diagnostics.items()
    }
    print(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in merged.items()), file=sys.stderr)
    return {key: merged}


def run(
    *,
    model_name: str | None,
    fields: dict,
    weights: str,
    checkpoint: int | str | None = None,
    stage2: str | None = None,
    sources: Sequence[str],
    output: str,
    gt: str | None = None,
    picture: str | None = None,
    scores_file: str | None = None,
    settings: RestoreSettings,
    reading: ReadOptions,
    options: OutputOptions,
    one_by_one: bool = False,
    skip_done: bool = False,
    metrics: Sequence[str] | None = None,
) -> dict:
    """Checks everything, restores all clips, prints and writes the results; returns them.

    weights, stage2: of the model and, if its result is to be restored once more, of a second one,
    which the weights themselves say. checkpoint: of a run, as `loading.load` takes a step.
    one_by_one: images are clips of their own. skip_done: leaves clips out whose output is there.
    metrics: what to score, of `score.NAMES`, with ground truth; PSNR and SSIM by default.
    Raises UserError or OSError for what the user can change: for one clip before its first frame is
    computed where that can be known; of several clips, when all others are done.
    """
    clips = find_clips(sources, output, gt=gt, picture=picture, one_by_one=one_by_one)
    loaded = loading.load_described(weights, model_name, step=checkpoint, **fields)
    stages = load_stages(loaded, stage2, settings)
    others = [path for path in (weights, stage2) if path and os.path.exists(path)]
    check_paths(
        clips,
        inputs=others,
        outputs=[scores_file] if scores_file else [],
        overwrite=options.overwrite,
    )
    print(f"{weights}: {loaded.source}, licence {loaded.license}", file=sys.stderr)
    if metrics is not None and gt is None:
        raise UserError(f"metrics {','.join(metrics)} compare with a ground truth: give --gt.")
    names = (PSNR, SSIM) if metrics is None else metrics
    measure = functools.partial(ClipScores, names, networks(names))
    results, failures = restore_all(
        stages, clips, settings, reading, options, skip_done=skip_done, measure=measure
    )
    summary = reports.summarise_clips(results)
    if summary:
        print(reports.clip_table(results, summary))
    report = {
        "model": loading.config(loaded.model),
        "dtype": jnp.dtype(loaded.model.dtype).name,
        "weights": str(weights),
        "stage2": stage2,
        "licence": loaded.license,
        "device": jax.devices()[0].device_kind,
        "sigma": settings.sigma,
        "ensemble": settings.ensemble,
        "clips": results,
        **({"failed": failures} if failures else {}),
        **summary,
    }
    if scores_file is not None:
        write_text(scores_file, reports.to_json(report))
    if failures:
        raise UserError(f"{len(failures)} of {len(clips)} clips failed: {', '.join(failures)}.")
    return report


def restore_all(
    stages: Stages,
    clips: Sequence[ClipFiles],
    settings: RestoreSettings,
    reading: ReadOptions,
    options: OutputOptions,
    *,
    skip_done: bool,
    measure: Callable[[], ClipScores] = ClipScores,
) -> tuple[list[dict], dict[str, str]]:
    """Restores clips one after the other; returns what became of them, and why others failed.

    The only one of a list raises its error; of several the others are done.
    """
    results: list[dict] = []
    failures: dict[str, str] = {}
    for index, clip in enumerate(clips, 1):
        where = f"[{index}/{len(clips)}] " if len(clips) > 1 else ""
        if skip_done and is_taken(clip.output):
            print(f"{where}{clip.name}: {clip.output} is there", file=sys.stderr)
            continue
        try:
            if not options.overwrite and clip.output != PIPE:
                check_free(clip.output)
            facts = restore_clip(stages, clip, settings, reading, options, measure=measure)
        except (UserError, OSError) as error:
            if len(clips) == 1:
                raise
            failures[clip.name] = str(error)
            print(f"{where}{clip.name}: failed: {error}", file=sys.stderr)
            continue
        results.append(facts)
        speed = facts["frames"] / max(facts["seconds"], 1e-3)
        what = "y4m" if clip.output == PIPE else describe(clip.output)
        print(
            f"{where}{clip.name}: {facts['frames']} frames written to {clip.output} ({what}), "
            f"{speed:.2f} frames/s",
            file=sys.stderr,
        )
    return results, failures


def load_stages(loaded: loading.Loaded, stage2: str | None, settings: RestoreSettings) -> Stages:
    """Loads the second stage, if any, and checks that all fit together and the options fit them."""
    first, second = put_on_device(loaded.model, loaded.params), None
    if stage2 is not None:
        fields = {} if loaded.model.dtype == jnp.float32 else {"dtype": loaded.model.dtype}
        again = loading.load_described(stage2, **fields)
        check_second(again.model, stage2)
        second = put_on_device(again.model, again.params)
    elif settings.quantise:
        raise UserError("--quantise rounds between two stages; give --stage2, or leave it out.")
    stages = Stages(first, second)
    stages.check(settings)
    return stages
