"""BasicVSR, whole clips at once: seconds per frame, compile seconds, peak resident memory.

    python benchmarks/basicvsr.py                       # 160x96 and 320x180, 12 and 48 frames
    python benchmarks/basicvsr.py --clips 2x16x24

The weights are made up: neither speed nor memory depends on them.
"""

import argparse
import json
from pathlib import Path

import measure
import rvrt_forward

CLIPS = ["12x96x160", "48x96x160", "12x180x320", "48x180x320"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure BasicVSR.")
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON, over the model's own")
    parser.add_argument("--clips", nargs="+", default=CLIPS, metavar="TxHxW")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()

    case = {"model": "basicvsr", "fields": args.fields, "repeats": args.repeats, "profile": False}
    rows = []
    for clip in args.clips:
        row = measure.in_subprocess(rvrt_forward.__file__, case | {"clip": clip})
        del row["profile"]
        rows.append(row)
    gflops = measure.matmul_gflops()
    measure.print_table(rows)
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    measure.write("basicvsr", {"case": case, "rows": rows, "matmul_gflops": gflops}, args.results)


if __name__ == "__main__":
    main()
