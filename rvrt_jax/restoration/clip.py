"""Restoring one clip to a file: plans, opens the output, goes on after an interruption."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from tqdm import tqdm

from rvrt_jax.errors import UserError
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.frames import PIPE, FrameWriter, open_writer, to_uint
from rvrt_jax.media.video_reader import VideoReader
from rvrt_jax.models.contract import Network, Params, Size
from rvrt_jax.restoration import output_size
from rvrt_jax.restoration.engine import Watcher, Work, restore_to
from rvrt_jax.restoration.journal import Journal, describe_files, describe_params
from rvrt_jax.restoration.plan import Plan, free_memory, plan_tile, plan_tiles
from rvrt_jax.restoration.programs import OutOfMemory
from rvrt_jax.restoration.restore import restore_stream
from rvrt_jax.restoration.settings import RestoreSettings

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

    def check(self, settings: RestoreSettings) -> None:
        """Raises UserError for settings that do not fit the networks."""
        models = [model for model, _ in filter(None, (self.first, self.second))]
        noisy = any(model.takes_noise_level for model in models)
        slides = any(model.window is not None for model in models)
        for model in models:
            # An option that no stage has a use for is a mistake, which the first one names.
            dataclasses.replace(
                settings,
                sigma=settings.sigma if model.takes_noise_level or not noisy else None,
                border=settings.border if model.window is not None or not slides else None,
            ).checked(model)


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """How restored frames are written."""

    # Frame rate of images that become a video, such as 25 or "24000/1001".
    fps: str | None = None
    # Replaces what is there; throws away an unfinished restoration too.
    overwrite: bool = False
    # Keeps finished segments beside the output until it is complete.
    journal: bool = True
    # "auto": a scene is restored by itself. "off": the video is one scene, as published.
    scene_cuts: Literal["auto", "off"] = "off"
    # Whether the frames that are read were deinterlaced, which they do not say.
    deinterlaced: bool = False
    # For the encoder: see `media.frames.open_writer`.
    encoder: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Output size over input size, or the size, if not that of the network (`output_size.choose`).
    scale: str | None = None
    height: int | None = None
    width: int | None = None

    @property
    def reduces(self) -> bool:
        """Whether another size than the network's own is asked for."""
        return (self.scale, self.height, self.width) != (None, None, None)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a clip."""

    # Frames that were written, and how many of them were finished by an earlier run.
    frames: int
    from_before: int
    # Seconds that this run took.
    seconds: float
    plan: Plan
    # What of the source the output cannot hold.
    left_out: list[str]
    # What each network says of itself.
    diagnostics: tuple[dict[str, list], dict[str, list]]


def restore_clip(
    stages: Stages,
    source: FrameSource,
    output: str,
    settings: RestoreSettings,
    options: OutputOptions,
    *,
    name: str,
    watcher: Watcher | None = None,
) -> Outcome:
    """Restores a clip to a file or folder, which appears under its name only when complete.

    The plan and the progress go to stderr under `name`. watcher: sees all frames. Where memory
    runs out, an automatic tile is made smaller. Raises UserError or OSError for what the user can
    change; what was finished by then is kept, and the same call goes on with it.
    """
    started = time.perf_counter()
    size = (source.length, source.height, source.width)
    diagnostics: tuple[dict, dict] = {}, {}
    with contextlib.ExitStack() as stack:
        journal = None
        if options.journal and source.length_known and output != PIPE:
            about = _about(stages, source, settings, options)
            journal = stack.enter_context(Journal(output, about, fresh=options.overwrite))
        plan, second = _plans(stages, name, size, settings, journal.plan if journal else None)
        if journal is not None:
            stack.enter_context(_kept(journal, name))
        while True:
            try:
                if journal is not None:
                    journal.begin(second or plan)
                before, writer = _attempt(
                    stages, source, output, settings, options, journal, name, (plan, second),
                    diagnostics, watcher,
                )  # fmt: skip
                break
            except OutOfMemory as error:
                # What a pipe has given or taken cannot be read or written again.
                if settings.tile != "auto" or not source.length_known or output == PIPE:
                    raise
                print(f"{name}: {error} Trying a smaller one.", file=sys.stderr)
                done = journal is not None and bool(journal.done)
                # Which of two networks asked for too much is not known: both get less.
                keep = done and second is None
                plan = _smaller(stages.first, name, size, settings, plan, keep_time=keep)
                if second is not None and stages.second is not None:
                    size_2 = (size[0], size[1] * stages.scale, size[2] * stages.scale)
                    second = _smaller(
                        stages.second, f"{name}, second stage", size_2, settings, second,
                        keep_time=done,
                    )  # fmt: skip
        if journal is not None:
            journal.finish()
    for what in writer.dropped:
        print(f"{output}: left out {what}", file=sys.stderr)
    seconds = round(time.perf_counter() - started, 3)
    return Outcome(writer.count, before, seconds, plan, list(writer.dropped), diagnostics)


def _attempt(
    stages, source, output, settings, options, journal, name, plans, diagnostics, watcher
) -> tuple[int, FrameWriter]:
    """Restores a clip by given plans; returns how many frames were done before, and the writer."""
    full = source.height * stages.scale, source.width * stages.scale
    reduced = output_size.choose(
        (source.height, source.width),
        stages.scale,
        scale=options.scale,
        height=options.height,
        width=options.width,
    )
    height, width = reduced or full
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(
            open_writer(
                output,
                fps=options.fps,
                height=height,
                width=width,
                bits=source.bits,
                source=source,
                overwrite=options.overwrite,
                within=journal.folder if journal is not None else None,
                **options.encoder,
            )
        )
        done = sum(stop - start for start, stop in journal.done) if journal is not None else 0
        length = source.length if source.length_known else None
        bar = stack.enter_context(_bar(name, length, done))

        def show(count: float) -> None:
            bar.update(count - bar.n)

        work = Work(
            stages.first[0],
            stages.first[1],
            settings.without_unused(stages.first[0]),
            bits=source.bits,
            scene_cuts=options.scene_cuts,
            finish=None if reduced is None else output_size.reduce_to(reduced),
            progress=show,
            diagnostics=diagnostics[0],
            watcher=watcher,
        )
        frames: Iterable[np.ndarray] = source
        plan, second = plans
        if stages.second is not None:
            model, params = stages.second
            frames = _first_stage(stages.first, frames, plan, settings, diagnostics[0])
            work = dataclasses.replace(
                work,
                model=model,
                params=params,
                settings=settings.without_unused(model),
                diagnostics=diagnostics[1],
            )
            plan = second
        return restore_to(work, plan, frames, writer, journal), writer


def _first_stage(
    stage: Stage, frames: Iterable, plan: Plan, settings: RestoreSettings, diagnostics: dict
) -> Iterator[np.ndarray]:
    """Yields what the first network makes of frames, for the second one."""
    model, params = stage
    first = dataclasses.replace(
        settings.without_unused(model), tile=plan.tile, overlap=plan.overlap
    )
    for frame in restore_stream(model, params, frames, first, diagnostics=diagnostics):
        yield to_uint(frame, 8) if settings.quantise else frame


def _plans(
    stages: Stages, name: str, size: Size, settings: RestoreSettings, begun: Plan | None
) -> tuple[Plan, Plan | None]:
    """Chooses how both networks are cut. begun: the plan that finished segments go by."""
    budget, free = free_memory(), free_memory(share=1.0)
    chosen: list[Plan] = []
    for stage, what in ((stages.first, name), (stages.second, f"{name}, second stage")):
        if stage is None:
            continue
        model, params = stage
        last = stages.second is None or bool(chosen)
        fitted = settings.without_unused(model).checked(model)
        if begun is not None and last:
            fitted = dataclasses.replace(fitted, tile=begun.tile, overlap=begun.overlap)
        if chosen:
            budget, free = budget.without(chosen[0]), free.without(chosen[0])
            size = (size[0], size[1] * stages.scale, size[2] * stages.scale)
        plan = plan_tiles(model, params, size, fitted, budget=budget)
        if begun is not None and last:
            plan = dataclasses.replace(plan, batch=begun.batch)
        print(f"{what}: {plan}", file=sys.stderr)
        if not plan.fits(free):
            print(f"{what}: that is more than is free; give a smaller --tile.", file=sys.stderr)
        chosen.append(plan)
    return chosen[0], chosen[1] if len(chosen) > 1 else None


def _smaller(
    stage: Stage, name: str, size: Size, settings: RestoreSettings, plan: Plan, *, keep_time: bool
) -> Plan:
    """Returns a plan that takes less than `plan`; raises UserError if there is none.

    keep_time: segments are finished, so that the cuts in time must stay.
    """
    model, params = stage
    budget = free_memory()
    estimate = plan_tile(model, plan.tile, plan.overlap, size)
    failed = max(estimate.device_bytes, plan.device_bytes)
    budget = dataclasses.replace(budget, device=min(budget.device, failed * 2 // 3))
    fitted = settings.without_unused(model).checked(model)
    time = plan.tile[0] if keep_time and model.window is None else None  # windows cut nothing
    smaller = plan_tiles(model, params, size, fitted, budget=budget, time=time)
    print(f"{name}: {smaller}", file=sys.stderr)
    return smaller


@contextlib.contextmanager
def _kept(journal: Journal, name: str) -> Iterator[None]:
    """Says what was restored before, and after an error what is kept."""
    count = sum(stop - start for start, stop in journal.done)
    if count:
        print(f"{name}: going on after {count} frames in {journal.folder}", file=sys.stderr)
    try:
        yield
    except BaseException as error:
        count = sum(stop - start for start, stop in journal.done)
        if count:
            print(
                f"{name}: {count} frames are kept in {journal.folder}; the same command goes on "
                "after them.",
                file=sys.stderr,
            )
        elif isinstance(error, KeyboardInterrupt):
            print(f"{name}: no segment was finished, so no frame is kept.", file=sys.stderr)
        raise


def _about(
    stages: Stages, source: FrameSource, settings: RestoreSettings, options: OutputOptions
) -> dict[str, Any]:
    """Returns what must be the same for a restoration to go on."""
    both = [stage for stage in (stages.first, stages.second) if stage is not None]
    return {
        "input": describe_files(source.files),
        "part": [source.length, str(source.start) if isinstance(source, VideoReader) else ""],
        "frame rate": options.fps,
        "model": [repr(model) for model, _ in both],
        "weights": [describe_params(params) for _, params in both],
        "settings": dataclasses.asdict(settings),
        "scene cuts": options.scene_cuts,
        "size": [options.scale, options.height, options.width],
        "bits": source.bits,
        "deinterlaced": options.deinterlaced,
    }


def _bar(name: str, length: int | None, done: int) -> tqdm:
    if length is None:
        return tqdm(desc=name, unit=" frames", bar_format="{desc}: {n:.1f} [{elapsed}, {rate_fmt}]")
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} "
    shape += "[{elapsed}<{remaining}, {rate_noinv_fmt}]"  # frames/s even if slower than 1
    return tqdm(total=length, initial=done, unit=" frames", desc=name, bar_format=shape)


def put_on_device(model: Network, params: Params) -> Stage:
    """Returns a stage whose parameters are on the device already."""
    return model, jax.device_put(params)


def check_second(model: Network, path: str) -> None:
    """Raises UserError if a network cannot restore the result of another one."""
    if model.scale != 1:
        raise UserError(
            f"--stage2 {path} holds a model that enlarges {model.scale} times; the second stage "
            "restores frames of their final size. Are these the weights of the first stage?"
        )
