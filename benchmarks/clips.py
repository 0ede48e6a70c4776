"""Every task on the three bundled clips: the input, a classical method, and all networks at hand.

    python benchmarks/clips.py                                  # all tasks
    python benchmarks/clips.py --tasks sr --weights rvrt_small runs/mine

Prints PSNR and SSIM (RGB, mean over 12 frames), LPIPS and the warping error (thousandths), seconds
per frame once compiled, peak resident memory of a process that does nothing else, and parameters.
LPIPS is left blank unless its weights were fetched: python -m rvrt_jax.weights get lpips_alex.
"""

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import bundled, metrics
from rvrt_jax.evaluation.score import LPIPS, NAMES, ClipScores, networks
from rvrt_jax.media.frames import to_uint
from rvrt_jax.restoration.restore import restore
from rvrt_jax.weights import load as loading

INPUT, BASELINE = "input", "baseline"


def main() -> None:
    parser = argparse.ArgumentParser(description="Score and measure models on the bundled clips.")
    parser.add_argument("--tasks", nargs="+", default=list(bundled.TASKS), choices=bundled.TASKS)
    parser.add_argument("--weights", nargs="+", help="of one task, instead of the known ones")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure_one(**args.case)))
        return
    if args.weights and len(args.tasks) > 1:
        parser.error("--weights are for one task: give --tasks.")
    rows = []
    for task in args.tasks:
        for clip in bundled.clips():
            for weights in (INPUT, BASELINE, *(args.weights or bundled.TASKS[task].networks)):
                case = {"task": task, "weights": weights, "clip": clip, "repeats": args.repeats}
                rows.append(measure.in_subprocess(__file__, case))
                measure.print_table(rows[-1:])
    rows += means(rows)
    gflops = measure.matmul_gflops()
    measure.print_table(rows)
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    measure.write("clips", {"rows": rows, "matmul_gflops": gflops}, args.results)


def measure_one(task: str, weights: str, clip: str, repeats: int) -> dict[str, Any]:
    """Returns the row of one task, clip and network, measured in this process."""
    todo = bundled.TASKS[task]
    posed = bundled.pose(todo, clip)
    parameters, name = 0, weights
    if weights == INPUT:
        name, make = todo.input, functools.partial(np.copy, posed.shown)
    elif weights == BASELINE:
        name, make = todo.baseline, functools.partial(bundled.baseline, todo, posed)
    else:
        model, params = loading.load(weights)
        parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
        make = functools.partial(restore, model, params, posed.lq, sigma=todo.sigma)
    made = make()
    restored = made if made.dtype == np.uint8 else to_uint(made, 8)
    seconds = measure.seconds(make, repeats=repeats)
    peak = measure.peak_bytes()  # before the metrics' own networks
    scores = metrics.mean(score(restored, posed.truth))
    return {
        "task": task,
        "clip": clip,
        "model": name,
        "PSNR": round(scores["psnr_rgb"], 3),
        "SSIM": round(scores["ssim_rgb"], 4),
        "LPIPS": round(scores["lpips"], 4) if "lpips" in scores else None,
        "warping_error": round(1000 * scores["warping"], 3),
        "seconds_per_frame": seconds / len(posed.lq),
        "peak_MiB": round(peak / measure.MIB),
        "parameters": int(parameters),
    }


def score(restored: np.ndarray, truth: np.ndarray) -> list[dict[str, float]]:
    """Returns the scores of each frame, without LPIPS where its weights are not there."""
    try:
        names, needed = NAMES, networks(NAMES)
    except UserError as error:
        print(f"without LPIPS: {error}", file=sys.stderr)
        names = tuple(name for name in NAMES if name != LPIPS)
        needed = networks(names)
    clip = ClipScores(names, needed)
    return [clip.add(*pair).scores for pair in zip(restored, truth, strict=True)]


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each task and model: what it scores on the mean of the clips."""
    found = []
    for task, model in dict.fromkeys((row["task"], row["model"]) for row in rows):
        group = [row for row in rows if (row["task"], row["model"]) == (task, model)]
        mean = {"task": task, "clip": "mean", "model": model}
        for key in ("PSNR", "SSIM", "LPIPS", "warping_error", "seconds_per_frame"):
            values = [row[key] for row in group if row[key] is not None]
            mean[key] = round(float(np.mean(values)), 4) if values else None
        found.append(mean | {key: group[0][key] for key in ("peak_MiB", "parameters")})
    return found


if __name__ == "__main__":
    main()
