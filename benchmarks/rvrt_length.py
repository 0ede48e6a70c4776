"""Compile time and peak memory as the video grows.

    python benchmarks/rvrt_length.py

Both should not depend on the number of frames but for what is kept of each: features and output.
"""

import argparse
import json
from pathlib import Path

import measure
import rvrt_forward


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure compile time and memory as the video grows."
    )
    parser.add_argument("--model", default="rvrt_sr")
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON, over the model's own")
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--size", default="40x48", metavar="HxW")
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()

    shared = {"model": args.model, "fields": args.fields, "repeats": 0, "profile": False}
    rows = []
    for frames in args.frames:
        case = shared | {"clip": f"{frames}x{args.size}"}
        row = measure.in_subprocess(rvrt_forward.__file__, case)
        del row["profile"]
        rows.append(row)
    measure.print_table(rows)
    first, last = rows[0], rows[-1]
    slope = 0.0
    if len(rows) > 1:
        slope = (last["peak_MiB"] - first["peak_MiB"]) / (args.frames[-1] - args.frames[0])
    print(
        f"compile time x{last['compile_s'] / first['compile_s']:.2f} from {args.frames[0]} to "
        f"{args.frames[-1]} frames; {slope:.1f} MiB of memory per further frame"
    )
    result = {"case": shared, "rows": rows, "MiB_per_frame": slope}
    measure.write("rvrt_length", result, args.results)


if __name__ == "__main__":
    main()
