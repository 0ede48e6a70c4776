"""Guided deformable attention, plain against streamed: time, temporary memory, and the bound.

    python benchmarks/deform_attn.py

The bound is the time to read, once per sample, the four neighbours of every position and, once,
queries and offsets, at the speed of a plain copy in the same run.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import measure
import numpy as np

from rvrt_jax.ops.deform_attn import ATTENTION


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the plain and the streamed attention.")
    parser.add_argument("--channels", type=int, default=144, help="of the features; q has twice")
    parser.add_argument("--clip-size", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="height and width")
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()

    arrays = inputs(args)
    rows = [row for name in ATTENTION for row in measure_one(name, arrays, args)]
    bandwidth = measure.copy_bandwidth()
    bounds = {"forward": bytes_read(args), "forward+backward": 3 * bytes_read(args)}
    for row in rows:
        row["bound_s"] = bounds[row["pass"]] / bandwidth
        row["times_bound"] = row["seconds"] / row["bound_s"]
    measure.print_table(rows)
    ratios = {}
    for passes in bounds:
        plain, streamed = (
            next(r for r in rows if (r["attention"], r["pass"]) == (name, passes))
            for name in ("plain", "streamed")
        )
        ratios[passes] = {
            "faster": plain["seconds"] / streamed["seconds"],
            "less_memory": plain["temporary_MiB"] / streamed["temporary_MiB"],
        }
        print(
            f"{passes}: streamed is {ratios[passes]['faster']:.2f} times as fast "
            f"in 1/{ratios[passes]['less_memory']:.1f} of the temporary memory"
        )
    print(f"a copy reads {bandwidth / 1e9:.1f} GB/s")
    case = {key: value for key, value in vars(args).items() if key != "results"}
    result = {"case": case, "rows": rows, "ratios": ratios, "copy_bytes_per_s": bandwidth}
    measure.write("deform_attn", result, args.results)


def inputs(args: argparse.Namespace) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (q, kv, offsets); q and keys have twice the features' channels, as in the network."""
    rng = np.random.default_rng(0)
    frame, n = (args.clip_size, args.size, args.size), args.clip_size
    q = rng.standard_normal((*frame, 2 * args.channels), np.float32)
    kv = rng.standard_normal((*frame, 4 * args.channels), np.float32)
    offsets = rng.uniform(-5, 5, (*frame, n, args.groups, args.window**2, 2)).astype(np.float32)
    return jnp.asarray(q[None]), jnp.asarray(kv[None]), jnp.asarray(offsets[None])


def bytes_read(args: argparse.Namespace) -> int:
    """Returns the bytes that the samples' neighbours, the queries and the offsets come to."""
    pixels, samples = args.clip_size * args.size**2, args.clip_size * args.window**2
    neighbours = pixels * samples * 4 * (4 * args.channels)
    offsets = pixels * samples * args.groups * 2
    return 4 * (neighbours + offsets + pixels * 2 * args.channels)


def measure_one(name: str, arrays: tuple[jax.Array, ...], args: argparse.Namespace) -> list[dict]:
    """Returns one row for the values alone and one for values and gradients."""
    attend = functools.partial(ATTENTION[name], heads=args.heads, window=(args.window, args.window))
    attend = jax.vmap(attend)  # over a batch of one clip, as in the network

    def both(q, kv, offsets):
        out, pull = jax.vjp(attend, q, kv, offsets)
        return out, pull(out)

    rows = []
    for passes, function in (("forward", attend), ("forward+backward", both)):
        program, compiling = measure.compile_seconds(function, *arrays)
        taken = measure.seconds(functools.partial(program, *arrays), repeats=args.repeats)
        rows.append(
            {
                "attention": name,
                "pass": passes,
                "seconds": taken,
                "compile_s": compiling,
                "temporary_MiB": measure.temporary_bytes(program) / measure.MIB,
            }
        )
    return rows


if __name__ == "__main__":
    main()
