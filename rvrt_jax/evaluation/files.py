"""From files to files: restores clips, scores them against ground truth, pictures them."""

import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rvrt_jax.data.degrade import imresize
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import picture as pictures
from rvrt_jax.evaluation import report as reports
from rvrt_jax.evaluation.clips import ClipFiles, ReadOptions, check_files, find_clips
from rvrt_jax.evaluation.metrics import mean
from rvrt_jax.evaluation.score import score_frame, to_8_bits
from rvrt_jax.files import write_text
from rvrt_jax.media.frames import open_frames, open_writer, to_uint
from rvrt_jax.models.contract import Network, Params, Size
from rvrt_jax.restoration.plan import Plan, free_memory, plan_tiles
from rvrt_jax.restoration.restore import restore_stream
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import load as loading

Stage = tuple[Network, Params]


@dataclasses.dataclass(frozen=True)
class Stages:
    """One network after the other, or one alone."""

    first: Stage
    second: Stage | None = None

    @property
    def scale(self) -> int:
        """Output size over input size; the second stage keeps the size."""
        return self.first[0].scale


class Comparison:
    """The scores of a clip frame by frame, against the input too, and its picture."""

    def __init__(self, scale: int, *, shown: int) -> None:
        """shown: number of the frame that the picture shows."""
        self.frames = 0
        self._scale, self._shown = scale, shown
        # What the restored frames are held against: the input, enlarged if need be.
        self._baseline = "bicubic" if scale > 1 else "input"
        self._scores: dict[str, list[dict[str, float]]] = {}
        self._panels: list[tuple[str, np.ndarray]] = []

    def add(self, original: np.ndarray, restored: np.ndarray, true: np.ndarray | None) -> None:
        """Takes the next frame: input and ground truth as read, the restored one as float."""
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
                scores = score_frame(image, true).scores
                self._scores.setdefault(name, []).append(scores)
                label += f", {scores['psnr_rgb']:.2f} dB"
            panels.append((label, image))
        if shown:
            truth = [("ground truth", to_8_bits(true))] if true is not None else []
            self._panels = panels + truth

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
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"])
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
    *,
    overwrite: bool = False,
) -> dict:
    """Restores one clip to its output, which appears under its name only when complete.

    Prints the tile, the progress and what of the source the output cannot hold on stderr. Returns
    {name, frames, seconds, tile, overlap, left_out}, with ground truth also
    {scores: {bicubic or input: {psnr_rgb, ...}, restored: {...}}}, and for EDVR
    {told: {offset_mean, offset_max}}, the mean and the largest of the clip in pixels, and
    told_by_stage2 if that is one.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(reading.open(clip.input))
        truth = stack.enter_context(open_frames(clip.gt)) if clip.gt is not None else None
        writer = stack.enter_context(
            open_writer(
                clip.output,
                fps=reading.fps,
                height=source.height * stages.scale,
                width=source.width * stages.scale,
                bits=source.bits,
                source=source,
                overwrite=overwrite,
            )
        )
        size = (source.length, source.height, source.width)
        plan = _plan(stages.first, clip.name, size, settings)
        started = time.perf_counter()
        bar = stack.enter_context(_bar(clip, source.length))
        frames, originals = itertools.tee(source)
        report = lambda done: bar.update(done - bar.n)  # noqa: E731
        diagnostics: dict[str, list] = {}
        diagnostics_2: dict[str, list] = {}
        last = stages.second is None
        restored = _stage(
            stages.first, frames, plan, settings, diagnostics, progress=report if last else None
        )
        if stages.second is not None:
            size = (size[0], size[1] * stages.scale, size[2] * stages.scale)
            second = _plan(stages.second, f"{clip.name}, second stage", size, settings, first=plan)
            if settings.quantise:
                restored = (to_uint(frame, 8) for frame in restored)
            restored = _stage(
                stages.second, restored, second, settings, diagnostics_2, progress=report
            )
        comparison = Comparison(stages.scale, shown=source.length // 2)
        for frame, original, true in _together(clip, restored, originals, truth):
            writer.write(to_uint(frame, source.bits))
            comparison.add(original, frame, true)
    for loss in writer.dropped:
        print(f"{clip.output}: left out {loss}", file=sys.stderr)
    seconds = round(time.perf_counter() - started, 3)
    if clip.picture is not None and not comparison.write_picture(clip.picture):
        print(
            f"{clip.picture}: not written, since the frame in the middle could not be read.",
            file=sys.stderr,
        )
    facts = {"name": clip.name, "frames": comparison.frames, "seconds": seconds}
    facts |= {"tile": plan.tile, "overlap": plan.overlap, "left_out": list(writer.dropped)}
    facts |= _summary_of("told", diagnostics, clip.name)
    facts |= _summary_of("told_by_stage2", diagnostics_2, f"{clip.name}, second stage")
    return facts | comparison.summary()


def _stage(
    stage: Stage,
    frames: Iterable,
    plan: Plan,
    settings: RestoreSettings,
    diagnostics: dict,
    *,
    progress,
) -> Iterator:
    model, params = stage
    settings = dataclasses.replace(settings.without_unused(model), tile=plan.tile)
    return restore_stream(
        model, params, frames, settings, progress=progress, diagnostics=diagnostics
    )


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


def _plan(
    stage: Stage, name: str, size: Size, settings: RestoreSettings, *, first: Plan | None = None
) -> Plan:
    """Chooses the tile, compiles the network for it, and says so on stderr.

    first: the plan of the stage before, which takes its part of the memory.
    """
    model, params = stage
    settings = settings.without_unused(model).checked(model)
    budget, free = free_memory(), free_memory(share=1.0)
    if first is not None:
        budget, free = budget.without(first), free.without(first)
    plan = plan_tiles(model, params, size, settings, budget=budget)
    print(f"{name}: {plan}", file=sys.stderr)
    if not plan.fits(free):
        print(f"{name}: that is more than is free; give a smaller --tile.", file=sys.stderr)
    return plan


def _bar(clip: ClipFiles, length: int) -> tqdm:
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} "
    shape += "[{elapsed}<{remaining}, {rate_noinv_fmt}]"  # frames/s even if slower than 1
    return tqdm(total=length, unit=" frames", desc=clip.name, bar_format=shape)


def _together(clip: ClipFiles, restored: Iterable, originals: Iterable, truth) -> Iterator[tuple]:
    """Yields (restored, original, true or None); raises UserError if the lengths differ."""
    truths = itertools.repeat(None) if truth is None else iter(truth)
    count = 0
    for frame, original in zip(restored, originals, strict=False):
        true = next(truths, None)
        if truth is not None and true is None:
            raise UserError(f"{clip.gt} has only {count} frames, its input {clip.input} more.")
        count += 1
        yield frame, original, true
    if truth is not None and next(truths, None) is not None:
        raise UserError(f"{clip.gt} has more frames than the {count} of its input {clip.input}.")


def run(
    *,
    model_name: str | None,
    fields: dict,
    weights: str,
    stage2: str | None = None,
    source: str,
    output: str,
    gt: str | None,
    picture: str | None,
    scores_file: str | None,
    settings: RestoreSettings,
    reading: ReadOptions,
    overwrite: bool,
) -> dict:
    """Checks everything, restores all clips, prints and writes the results; returns them.

    weights, stage2: of the model and, if its result is to be restored once more, of a second one,
    which the weights themselves say. Raises UserError or OSError for what the user can mend: before
    the first frame is computed where that can be known.
    """
    clips = find_clips(source, output, gt=gt, picture=picture)
    loaded = loading.load_described(weights, model_name, **fields)
    stages = _stages(loaded, stage2, settings)
    others = {
        "inputs": [path for path in (weights, stage2) if path and os.path.exists(path)],
        "outputs": [scores_file] if scores_file else [],
    }
    check_files(clips, stages.scale, reading, **others, overwrite=overwrite)
    print(f"{weights}: {loaded.source}, licence {loaded.license}", file=sys.stderr)
    results = [restore_clip(stages, clip, settings, reading, overwrite=overwrite) for clip in clips]
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
        **summary,
    }
    if scores_file is not None:
        write_text(scores_file, reports.to_json(report))
    return report


def _stages(loaded: loading.Loaded, stage2: str | None, settings: RestoreSettings) -> Stages:
    """Loads the second stage, if any, and checks that all fit together and the options fit them."""
    first, second = (loaded.model, jax.device_put(loaded.params)), None
    if stage2 is not None:
        fields = {} if loaded.model.dtype == jnp.float32 else {"dtype": loaded.model.dtype}
        again = loading.load_described(stage2, **fields)
        if again.model.scale != 1:
            raise UserError(
                f"--stage2 {stage2} holds a model that enlarges {again.model.scale} times; the "
                "second stage restores frames of their final size. Are these the weights of the "
                "first stage?"
            )
        second = again.model, jax.device_put(again.params)
    elif settings.quantise:
        raise UserError("--quantise rounds between two stages; give --stage2, or leave it out.")
    models = [model for model, _ in filter(None, (first, second))]
    noisy = any(model.takes_noise_level for model in models)
    slides = any(model.window is not None for model in models)
    for model in models:
        # An option that no stage has a use for is a mistake, which the first one names.
        dataclasses.replace(
            settings,
            sigma=settings.sigma if model.takes_noise_level or not noisy else None,
            border=settings.border if model.window is not None or not slides else None,
        ).checked(model)
    return Stages(first, second)
