"""Restores a bundled clip and shows what the models are worth: `python -m rvrt_jax.demo`.

The clip, 12 real frames of 320x192, is made four times smaller, restored with the bundled small
RVRT and EDVR and, where its weights can be fetched, with BasicVSR, and compared with bicubic
upscaling and with the original. Leaves restored.mp4, comparison.png and scores.json.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.data.degrade import bicubic_down, imresize
from rvrt_jax.errors import UserError, exit_code
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.evaluation import report as reports
from rvrt_jax.evaluation.metrics import METRICS, mean
from rvrt_jax.evaluation.score import ScoredFrame, restore_and_score, score_frame
from rvrt_jax.files import check_free, write_text
from rvrt_jax.media.frames import open_writer
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import fetch
from rvrt_jax.weights import load as loading

SCALE = 4
BASICVSR = "basicvsr_reds4"
BUNDLED_WEIGHTS = {"rvrt_tiny": "RVRT, small", "edvr_tiny": "EDVR, small"}


@dataclasses.dataclass(frozen=True)
class Version:
    """One way to enlarge the clip. frames: uint8 [t, h, w, 3]; seconds: per frame."""

    name: str
    frames: np.ndarray
    seconds: float | None
    scores: dict[str, float]


def run(
    output: Path, *, clip: str, models: Sequence[str], with_basicvsr: bool, overwrite: bool
) -> dict:
    """Restores one bundled clip, prints and writes the results; returns what scores.json holds.

    models: weights to restore with, of which the first one's video is written. Raises UserError for
    a clip that is not bundled, an `output` that is taken, or weights that cannot be loaded;
    BasicVSR's may be missing, which is said.
    """
    if not overwrite:
        check_free(str(output))
    manifest = json.loads((BUNDLED / "manifest.json").read_text())
    if clip not in manifest:
        raise UserError(f"there is no clip {clip!r}; choose from {', '.join(manifest)}.")
    truth = load_folders(BUNDLED)[clip]
    low = bicubic_down(truth, SCALE)
    frames, h, w, _ = low.shape
    print(f"{clip}: {frames} frames of {w}x{h}, to be enlarged {SCALE} times")

    enlarged = [imresize(frame, SCALE) for frame in low]
    scored = [score_frame(*pair) for pair in zip(enlarged, truth, strict=True)]
    versions = [_version("bicubic", scored, None)]
    left_out = {}
    for path in models:
        name = BUNDLED_WEIGHTS.get(path, Path(path).name)
        versions.append(_restored(name, path, low, truth))
    if with_basicvsr:
        try:
            fetch.get(BASICVSR)
        except (UserError, OSError) as error:
            left_out["BasicVSR"] = " ".join(str(error).split())
            print(f"BasicVSR is left out: {left_out['BasicVSR']}", file=sys.stderr)
        else:
            versions.append(_restored("BasicVSR", BASICVSR, low, truth))
    print(_table(versions))

    report = {
        "clip": clip,
        "versions": {v.name: v.scores | {"seconds_per_frame": v.seconds} for v in versions},
        "left_out": left_out,
    }
    _write(output, versions, truth, manifest[clip]["fps"], report, overwrite=overwrite)
    return report


def _restored(name: str, path: str, low: np.ndarray, truth: np.ndarray) -> Version:
    loaded = loading.load_described(path)
    model, params = loaded.model, loaded.params
    if model.scale != SCALE or model.takes_noise_level:
        raise UserError(f"{path} holds no model for x{SCALE} super-resolution; give one.")
    started = time.perf_counter()
    settings = RestoreSettings().checked(model)
    plan_tiles(model, params, low.shape[:3], settings)  # compiles
    compiled = time.perf_counter()
    scored = list(restore_and_score(model, params, low, truth, settings))
    seconds = round((time.perf_counter() - compiled) / len(low), 3)
    print(
        f"{name}: {loaded.source}, licence {loaded.license}; "
        f"compiled in {compiled - started:.0f} s, then {seconds:.2f} s a frame"
    )
    return _version(name, scored, seconds)


def _version(name: str, scored: list[ScoredFrame], seconds: float | None) -> Version:
    frames = np.stack([frame.restored for frame in scored])
    return Version(name, frames, seconds, mean([frame.scores for frame in scored]))


def _table(versions: list[Version]) -> str:
    """Returns the table of scores; gains are over the first version."""
    lines: list[tuple[str, ...]] = [("", *METRICS.values(), "gain", "s/frame")]
    for version in versions:
        rest = ("", "")
        if version.seconds is not None:
            gain = version.scores["psnr_rgb"] - versions[0].scores["psnr_rgb"]
            rest = f"{gain:+.2f} dB", f"{version.seconds:.2f}"
        lines.append((version.name, *reports.score_cells(version.scores), *rest))
    return reports.aligned(lines)


def _write(
    folder: Path,
    versions: list[Version],
    truth: np.ndarray,
    fps: str,
    report: dict,
    *,
    overwrite: bool,
) -> None:
    video, picture, scores = (
        folder / name for name in ("restored.mp4", "comparison.png", "scores.json")
    )
    folder.mkdir(parents=True, exist_ok=True)
    chosen = versions[1]
    h, w = truth.shape[1:3]
    with open_writer(video, fps=fps, height=h, width=w, overwrite=overwrite) as writer:
        for frame in chosen.frames:
            writer.write(frame)
    shown = len(truth) // 2
    panels = [(f"{v.name}, {v.scores['psnr_rgb']:.2f} dB", v.frames[shown]) for v in versions]
    compare.write(picture, compare.picture([*panels, ("ground truth", truth[shown])]))
    write_text(scores, reports.to_json(report))
    print(f"the clip restored by {chosen.name}: {video}")
    print(f"all versions side by side: {picture}")
    print(f"the scores: {scores}")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rvrt_jax.demo",
        description="Restore a bundled clip, compare with bicubic upscaling and ground truth.",
    )
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--clip", default="cup_hand", help="bundled clip (default: cup_hand)")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=list(BUNDLED_WEIGHTS),
        help=f"files, runs or names (default: {' '.join(BUNDLED_WEIGHTS)}); the first one's "
        "result becomes the video",
    )
    parser.add_argument(
        "--no-basicvsr", action="store_true", help="neither fetch BasicVSR (70 MB) nor run it"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results of an earlier run"
    )
    arguments = parser.parse_args(argv)
    return exit_code(
        lambda: run(
            arguments.output,
            clip=arguments.clip,
            models=arguments.weights,
            with_basicvsr=not arguments.no_basicvsr,
            overwrite=arguments.overwrite,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
