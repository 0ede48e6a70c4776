"""Deformable convolution, plain against streamed: time and temporary memory, both passes.

    python benchmarks/deform_conv.py                    # 64 and 128 features, 64x64 and 180x320
    python benchmarks/deform_conv.py --features 16 --sizes 12x20 --groups 4

One frame, 3x3 taps, offsets of some pixels.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import measure
import numpy as np

from rvrt_jax.ops.deform_conv import DEFORM_CONV


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the plain and the streamed convolution.")
    parser.add_argument("--features", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--sizes", nargs="+", default=["64x64", "180x320"], metavar="HxW")
    parser.add_argument("--groups", type=int, default=8, help="that are sampled together")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()

    rows = []
    for features in args.features:
        for size in args.sizes:
            height, width = map(int, size.split("x"))
            arrays = inputs(features, height, width, args.groups)
            for name in DEFORM_CONV:
                case = {"features": features, "size": size, "convolution": name}
                rows += [case | row for row in measure_one(name, arrays, args.repeats)]
    measure.print_table(rows)
    ratios = compare(rows)
    measure.print_table(ratios)
    gflops = measure.matmul_gflops()
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    case = {key: value for key, value in vars(args).items() if key != "results"}
    result = {"case": case, "rows": rows, "ratios": ratios, "matmul_gflops": gflops}
    measure.write("deform_conv", result, args.results)


def inputs(features: int, height: int, width: int, groups: int) -> tuple[jax.Array, ...]:
    """Returns (x, offsets, mask, kernel)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((height, width, features), np.float32)
    offsets = rng.uniform(-5, 5, (height, width, groups, 9, 2)).astype(np.float32)
    mask = rng.random((height, width, groups, 9), np.float32)
    kernel = rng.standard_normal((3, 3, features, features), np.float32)
    return tuple(map(jnp.asarray, (x, offsets, mask, kernel)))


def measure_one(name: str, arrays: tuple[jax.Array, ...], repeats: int) -> list[dict]:
    """Returns one row for the values alone and one for values and gradients."""
    convolve = DEFORM_CONV[name]

    def both(*arrays):
        out, pull = jax.vjp(convolve, *arrays)
        return out, pull(out)

    rows = []
    for passes, function in (("forward", convolve), ("forward+backward", both)):
        program, compiling = measure.compile_seconds(function, *arrays)
        taken = measure.seconds(functools.partial(program, *arrays), repeats=repeats)
        rows.append(
            {
                "pass": passes,
                "seconds": taken,
                "compile_s": compiling,
                "temporary_MiB": measure.temporary_bytes(program) / measure.MIB,
            }
        )
    return rows


def compare(rows: list[dict]) -> list[dict]:
    """Returns for each case by how much the streamed convolution is faster and smaller."""
    ratios = []
    plain = {case_of(row): row for row in rows if row["convolution"] == "plain"}
    for row in rows:
        if row["convolution"] == "streamed":
            features, size, passes = case_of(row)
            other = plain[features, size, passes]
            ratios.append(
                {
                    "features": features,
                    "size": size,
                    "pass": passes,
                    "times_as_fast": other["seconds"] / row["seconds"],
                    "times_less_memory": other["temporary_MiB"] / row["temporary_MiB"],
                }
            )
    return ratios


def case_of(row: dict) -> tuple[int, str, str]:
    return row["features"], row["size"], row["pass"]


if __name__ == "__main__":
    main()
