"""Bicubic and the models that come with weights, on the three bundled clips.

    python benchmarks/clips.py                     # bicubic and all weights at hand
    python benchmarks/clips.py --weights rvrt_tiny runs/mine

Prints PSNR and SSIM (RGB, mean over the 12 frames of 320x192, made from 80x48), seconds per frame
once compiled, peak resident memory of a process that does nothing else, and parameters.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np

from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.data.degrade import bicubic_down, imresize
from rvrt_jax.evaluation import metrics
from rvrt_jax.media.frames import to_uint
from rvrt_jax.restoration.restore import restore
from rvrt_jax.weights import load as loading

SCALE = 4
BICUBIC = "bicubic"
WEIGHTS = ["rvrt_tiny", "edvr_tiny", "basicvsr_reds4"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Score and measure models on the bundled clips.")
    parser.add_argument("--weights", nargs="+", default=WEIGHTS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure_one(**args.case)))
        return
    rows = []
    for clip in sorted(path.name for path in BUNDLED.iterdir() if path.is_dir()):
        for weights in (BICUBIC, *args.weights):
            case = {"weights": weights, "clip": clip, "repeats": args.repeats}
            rows.append(measure.in_subprocess(__file__, case))
            measure.print_table(rows[-1:])
    gflops = measure.matmul_gflops()
    measure.print_table(rows)
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    measure.write("clips", {"rows": rows, "matmul_gflops": gflops}, args.results)


def measure_one(weights: str, clip: str, repeats: int) -> dict[str, Any]:
    """Returns the row of one model and clip, measured in this process."""
    truth = load_folders(BUNDLED)[clip]
    low = bicubic_down(truth, SCALE)
    if weights == BICUBIC:
        parameters, enlarge = 0, functools.partial(bicubic, low)
    else:
        model, params = loading.load(weights)
        parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
        enlarge = functools.partial(restore, model, params, low)
    restored = to_uint(enlarge(), 8)
    seconds = measure.seconds(enlarge, repeats=repeats)
    pairs = zip(restored, truth, strict=True)
    scores = metrics.mean([metrics.frame_scores(frame, true) for frame, true in pairs])
    return {
        "clip": clip,
        "model": weights,
        "PSNR": round(scores["psnr_rgb"], 3),
        "SSIM": round(scores["ssim_rgb"], 4),
        "seconds_per_frame": seconds / len(low),
        "peak_MiB": round(measure.peak_bytes() / measure.MIB),
        "parameters": int(parameters),
    }


def bicubic(low: np.ndarray) -> np.ndarray:
    """Enlarges uint8 frames [t, h, w, 3]; returns them rounded, as float in [0, 1]."""
    return np.stack([imresize(frame, SCALE) for frame in low]).astype(np.float32) / 255


if __name__ == "__main__":
    main()
