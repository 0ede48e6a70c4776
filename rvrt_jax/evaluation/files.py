"""From files to files: restores clips, scores them against ground truth, pictures them."""

import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from tqdm import tqdm

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.evaluation import scoring
from rvrt_jax.files import check_outputs, write_text
from rvrt_jax.media.frames import is_video, open_frames, open_writer, to_uint
from rvrt_jax.restoration.restore import (
    check_options,
    check_tile,
    free_memory,
    plan_tiles,
    restore_stream,
)
from rvrt_jax.restoration.tiling import Plan, fits
from rvrt_jax.weights import load as loading


@dataclasses.dataclass(frozen=True)
class Clip:
    """Where one clip is read and written; `gt` and `picture` are None if not asked for."""

    name: str
    input: str
    output: str
    gt: str | None
    picture: str | None


@dataclasses.dataclass(frozen=True)
class Options:
    """How clips are restored.

    tile, overlap, sigma, border, ensemble: as `restore`'s. fps: of image folders written to a
    video. damaged: "skip" leaves out what cannot be decoded of a broken video. quantise: rounds to
    8 bits what goes from the first stage to the second, as published.
    """

    tile: tuple[int, int, int] | str | None = "auto"
    overlap: tuple[int, int, int] = (2, 20, 20)
    sigma: float | None = None
    border: str | None = None
    ensemble: int = 1
    fps: str | None = None
    damaged: Literal["error", "skip"] = "error"
    quantise: bool = False


@dataclasses.dataclass(frozen=True)
class Stages:
    """One model after the other, or one alone. Each is (model, params)."""

    first: tuple[Any, Any]
    second: tuple[Any, Any] | None = None

    @property
    def scale(self) -> int:
        """Output size over input size; the second stage keeps the size."""
        return self.first[0].scale


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


def find_clips(source: str, output: str, *, gt: str | None, picture: str | None) -> list[Clip]:
    """Returns the clips that an input path stands for.

    A folder with sub-folders and no files is one clip per sub-folder, written to the folder of that
    name below `output` and scored against the one below `gt`; anything else is one clip.
    """
    folder = Path(source)
    entries = sorted(p for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else []
    if not entries or not all(entry.is_dir() for entry in entries):
        return [Clip(folder.stem if is_video(source) else folder.name, source, output, gt, picture)]
    if is_video(output):
        raise UserError(
            f"{source} holds {len(entries)} clips, but --output {output} is one video file. "
            f"Give a folder."
        )
    clips = []
    for entry in entries:
        shown = Path(picture) if picture else None
        clips.append(
            Clip(
                entry.name,
                str(entry),
                os.path.join(output, entry.name),
                os.path.join(gt, entry.name) if gt else None,
                str(shown.with_name(f"{shown.stem}_{entry.name}{shown.suffix}")) if shown else None,
            )
        )
    return clips


def check_files(
    clips: list[Clip],
    scale: int,
    options: Options,
    *,
    inputs: Iterable[str] = (),
    outputs: Iterable[str] = (),
    overwrite: bool,
) -> None:
    """Raises UserError if an output is taken or an input, or a ground truth does not fit its clip.

    inputs, outputs: further files that are read and written, such as weights and scores.
    """
    read, written = list(inputs), [*outputs]
    for clip in clips:
        written += filter(None, (clip.output, clip.picture))
        with open_frames(clip.input, fps=options.fps, damaged=options.damaged) as source:
            read += map(str, source.files)
            if clip.gt is not None:
                with open_frames(clip.gt) as truth:
                    read += map(str, truth.files)
                    _check_truth(clip, source, truth, scale)
    check_outputs(written, inputs=read, overwrite=overwrite)


def _check_truth(clip: Clip, source, truth, scale: int) -> None:
    if source.length != truth.length:
        raise UserError(
            f"{clip.gt} has {truth.length} frames, its input {clip.input} {source.length}. "
            f"The ground truth must have the same frames."
        )
    expected = (source.height * scale, source.width * scale)
    if (truth.height, truth.width) != expected:
        raise UserError(
            f"{clip.gt} is {truth.width}x{truth.height}, but {clip.input} of "
            f"{source.width}x{source.height} at scale {scale} becomes {expected[1]}x{expected[0]}. "
            f"Give the ground truth of this size."
        )


def restore_clip(stages: Stages, clip: Clip, options: Options, *, overwrite: bool = False) -> dict:
    """Restores one clip to its output, which appears under its name only when complete.

    Prints the tile, the progress and what of the source the output cannot hold on stderr. Returns
    {name, frames, seconds, tile, overlap, left_out}, with ground truth also
    {scores: {bicubic or input: {psnr_rgb, ...}, restored: {...}}}, and for EDVR
    {told: {offset_mean, offset_max}}, the mean and the largest of the clip in pixels, and
    told_by_stage2 if that is one.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(
            open_frames(clip.input, fps=options.fps, damaged=options.damaged)
        )
        truth = stack.enter_context(open_frames(clip.gt)) if clip.gt is not None else None
        writer = stack.enter_context(
            _open_output(clip, source, stages.scale, options.fps, overwrite)
        )
        size = (source.length, source.height, source.width)
        plan = _plan(stages.first, clip.name, size, options)
        started = time.perf_counter()
        bar = stack.enter_context(_bar(clip, source.length))
        frames, originals = itertools.tee(source)
        report = lambda done: bar.update(done - bar.n)  # noqa: E731
        told: dict[str, list] = {}
        told_again: dict[str, list] = {}
        last = stages.second is None
        restored = _stage(
            stages.first, frames, plan, options, told, progress=report if last else None
        )
        if stages.second is not None:
            size = (size[0], size[1] * stages.scale, size[2] * stages.scale)
            second = _plan(stages.second, f"{clip.name}, second stage", size, options)
            if options.quantise:
                restored = (to_uint(frame, 8) for frame in restored)
            restored = _stage(stages.second, restored, second, options, told_again, progress=report)
        scores = scoring.Scores(stages.scale, shown=source.length // 2)
        for frame, original, true in _together(clip, restored, originals, truth):
            writer.write(to_uint(frame, source.bits))
            scores.add(original, frame, true)
    for loss in writer.dropped:
        print(f"{clip.output}: left out {loss}", file=sys.stderr)
    seconds = round(time.perf_counter() - started, 3)
    if clip.picture is not None:
        compare.write(clip.picture, scores.picture())
    facts = {"name": clip.name, "frames": scores.frames, "seconds": seconds}
    facts |= {"tile": plan.tile, "overlap": plan.overlap, "left_out": list(writer.dropped)}
    facts |= _summary_of("told", told, clip.name)
    facts |= _summary_of("told_by_stage2", told_again, f"{clip.name}, second stage")
    return facts | scores.summary()


def _stage(
    stage: tuple[Any, Any], frames: Iterable, plan: Plan, options: Options, told: dict, *, progress
) -> Iterator:
    model, params = stage
    return restore_stream(
        model,
        params,
        frames,
        tile=plan.tile,
        overlap=options.overlap,
        sigma=options.sigma if model.in_channels == 4 else None,
        border=options.border if model.window is not None else None,
        ensemble=options.ensemble,
        progress=progress,
        told=told,
    )


def _summary_of(key: str, told: dict[str, list], name: str) -> dict:
    """Returns {key: {...}} of what a model told of itself, and prints it; {} if nothing."""
    if not told:
        return {}
    merged = {
        key: float(max(values) if key.endswith("max") else sum(values) / len(values))
        for key, values in told.items()
    }
    print(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in merged.items()), file=sys.stderr)
    return {key: merged}


def _plan(stage: tuple[Any, Any], name: str, size: tuple[int, int, int], options: Options) -> Plan:
    """Chooses the tile, compiles the network for it, and says so on stderr."""
    plan = plan_tiles(*stage, size, tile=options.tile, overlap=options.overlap)
    print(f"{name}: {plan}", file=sys.stderr)
    if not fits(plan, free_memory(share=1.0)):
        print(f"{name}: that is more than is free; give a smaller --tile.", file=sys.stderr)
    return plan


def _bar(clip: Clip, length: int) -> tqdm:
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} "
    shape += "[{elapsed}<{remaining}, {rate_noinv_fmt}]"  # frames/s even if slower than 1
    return tqdm(total=length, unit=" frames", desc=clip.name, bar_format=shape)


def _open_output(clip: Clip, source, scale: int, fps: str | None, overwrite: bool):
    return open_writer(
        clip.output,
        fps=fps,
        height=source.height * scale,
        width=source.width * scale,
        bits=source.bits,
        source=source,
        overwrite=overwrite,
    )


def _together(clip: Clip, restored: Iterable, originals: Iterable, truth) -> Iterator[tuple]:
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
    options: Options,
    overwrite: bool,
) -> dict:
    """Checks everything, restores all clips, prints and writes the results; returns them.

    weights, stage2: of the model and, if its result is to be restored once more, of a second one,
    which the weights themselves say. Raises UserError or OSError for what the user can mend: before
    the first frame is computed where that can be known.
    """
    clips = find_clips(source, output, gt=gt, picture=picture)
    loaded = loading.load_described(weights, model_name, **fields)
    stages = _stages(loaded, stage2, options)
    others = {
        "inputs": [path for path in (weights, stage2) if path and os.path.exists(path)],
        "outputs": [scores_file] if scores_file else [],
    }
    check_files(clips, stages.scale, options, **others, overwrite=overwrite)
    print(f"{weights}: {loaded.source}, licence {loaded.license}", file=sys.stderr)
    results = [restore_clip(stages, clip, options, overwrite=overwrite) for clip in clips]
    summary = scoring.summarise(results)
    if summary:
        print(scoring.table(results, summary))
    report = {
        "model": loading.config(loaded.model),
        "dtype": jnp.dtype(loaded.model.dtype).name,
        "weights": str(weights),
        "stage2": stage2,
        "licence": loaded.license,
        "device": jax.devices()[0].device_kind,
        "sigma": options.sigma,
        "ensemble": options.ensemble,
        "clips": results,
        **summary,
    }
    if scores_file is not None:
        write_text(scores_file, scoring.to_json(report))
    return report


def _stages(loaded: loading.Loaded, stage2: str | None, options: Options) -> Stages:
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
    elif options.quantise:
        raise UserError("--quantise rounds between two stages; give --stage2, or leave it out.")
    models = [model for model, _ in filter(None, (first, second))]
    noisy, sliding = (
        [m for m in models if m.in_channels == 4], [m for m in models if m.window is not None]
    )  # fmt: skip
    for model in models:
        check_tile(model, None if options.tile == "auto" else options.tile, options.overlap)
        check_options(
            model,  # an option that no stage has a use for is the first one's mistake
            sigma=options.sigma if model in noisy or not noisy else None,
            border=options.border if model in sliding or not sliding else None,
            ensemble=options.ensemble,
        )
    return Stages(first, second)
