"""EDVR: seconds per restored frame, compile seconds, peak memory; features kept against not.

    python benchmarks/edvr.py                           # EDVR-M, 320x180; compared at 160x96
    python benchmarks/edvr.py --sizes 16x24 --frames 4 --fields '{"num_feat": 8}' --windows 3

"kept" restores a clip as rvrt_jax.restore does, with each frame's features computed once; "naive"
runs the whole network on every window. Both are run at the last of the sizes. The weights are made
up: neither speed nor memory depends on them.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import measure
import numpy as np

from rvrt_jax.models import build
from rvrt_jax.restoration import sliding
from rvrt_jax.restoration.restore import restore


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure EDVR.")
    parser.add_argument("--variant", default="edvr_m")
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON, over the variant's")
    parser.add_argument("--sizes", nargs="+", default=["180x320", "96x160"], metavar="HxW")
    parser.add_argument("--windows", type=int, nargs="+", default=[5, 7], help="frames of a window")
    parser.add_argument("--frames", type=int, default=6, help="of the clip")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(run(**args.case)))
        return

    cases = [(size, args.windows[0], "kept") for size in args.sizes[:-1]]
    cases += [(args.sizes[-1], window, way) for window in args.windows for way in WAYS]
    rows = []
    for size, window, way in cases:
        case = {"variant": args.variant, "size": size, "frames": args.frames, "way": way}
        case["fields"] = args.fields | {"num_frame": window}
        found = measure.in_subprocess(__file__, case)
        rows.append({"size": size, "window": window, "way": way} | found)
        measure.print_table(rows[-1:])
    gflops = measure.matmul_gflops()
    measure.print_table(rows)
    ratios = {}
    for window in args.windows:
        taken = {row["way"]: row["s_per_frame"] for row in rows[-2 * len(args.windows) :]
                 if row["window"] == window}  # fmt: skip
        ratios[window] = taken["naive"] / taken["kept"]
        print(f"windows of {window}: kept features make it {ratios[window]:.2f} times as fast")
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    case = {"variant": args.variant, "fields": args.fields, "frames": args.frames}
    result = {"case": case, "rows": rows, "ratios": ratios}
    measure.write("edvr", result | {"matmul_gflops": gflops}, args.results)


def run(variant: str, fields: dict, size: str, frames: int, way: str) -> dict:
    """Restores a clip, in this process alone; returns a row."""
    model = build(variant, **fields)
    height, width = map(int, size.split("x"))
    video = jnp.zeros((1, model.window, 8 * model.size_multiple, 8 * model.size_multiple, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), video)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), shapes)
    clip = rng.random((frames, height, width, 3), np.float32)
    params = jax.device_put(params)
    go = functools.partial(WAYS[way], model, params)
    start = time.perf_counter()
    go(clip[:1])  # a window all the same
    first = time.perf_counter() - start
    start = time.perf_counter()
    go(clip[:1])
    again = time.perf_counter() - start
    start = time.perf_counter()
    go(clip)
    taken = time.perf_counter() - start
    return {
        "s_per_frame": taken / frames,
        "compile_s": first - again,
        "peak_MiB": measure.peak_bytes() / measure.MIB,
    }


def naive(model, params, clip: np.ndarray) -> np.ndarray:
    """Runs the whole network on every window by itself."""
    out = []
    for centre in range(len(clip)):
        indices = sliding.frame_indices(centre, len(clip), model.window, model.border)
        out.append(np.asarray(_whole(model, params, clip[None, indices]))[0, 0])
    return np.stack(out)


@functools.partial(jax.jit, static_argnums=0)
def _whole(model, params, window):
    return model.apply({"params": params}, window)


WAYS = {"kept": restore, "naive": naive}

if __name__ == "__main__":
    main()
