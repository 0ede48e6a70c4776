"""The whole network's forward pass: seconds per frame, compile seconds, peak resident memory.

    python benchmarks/rvrt_forward.py                       # rvrt_sr, T=8 at 64x64, T=4 at 128x128
    python benchmarks/rvrt_forward.py --clips 8x64x64 --profile

Each case runs in a process of its own. `--profile` traces one call and adds up the time of each
part of the network.
"""

import argparse
import collections
import functools
import gzip
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from rvrt_jax.models import build
from rvrt_jax.models.contract import in_channels

PARTS = (  # the first that fits; XLA fuses an input convolution with the norm behind it
    ("alignment: offsets", "offset_conv"),
    ("alignment: linear layers", r"align/(q|k|v|proj|mlp)/"),
    ("alignment: sampling and attention", "align"),
    ("Swin layers", "rstb"),
    ("input convolutions", r"norm_in/|(backbone|extract|reconstruct)/conv"),
    ("upsampling tail", "upsampler"),
    ("flow", "spynet|_flows"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the whole network's forward pass.")
    parser.add_argument("--model", default="rvrt_sr")
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON, over the model's own")
    parser.add_argument("--clips", nargs="+", default=["8x64x64", "4x128x128"], metavar="TxHxW")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="write shares of the time")
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure_one(**args.case)))
        return

    shared = {"model": args.model, "fields": args.fields, "repeats": args.repeats}
    rows, profiles = [], {}
    for clip in args.clips:
        case = shared | {"clip": clip, "profile": args.profile}
        row = measure.in_subprocess(__file__, case)
        profiles[clip] = row.pop("profile")
        rows.append(row)
    gflops = measure.matmul_gflops()
    measure.print_table(rows)
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    result = {"case": shared, "rows": rows, "matmul_gflops": gflops}
    if args.profile:
        for clip, shares in profiles.items():
            print(f"\n{clip}: shares of the time by part of the network")
            measure.print_table(shares)
        result["profiles"] = profiles
    measure.write("rvrt_forward", result, args.results)


def measure_one(
    model: str, fields: dict[str, Any], repeats: int, clip: str, profile: bool
) -> dict[str, Any]:
    """Returns the row of one case, measured in this process."""
    t, h, w = map(int, clip.split("x"))
    network = build(model, **fields)
    video = jnp.asarray(
        np.random.default_rng(0).random((1, t, h, w, in_channels(network)), np.float32)
    )
    # Made-up weights: speed and memory do not depend on them, and compiling `init` takes longer
    # than everything else here.
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), video[:, : network.time_multiple])
    params = jax.tree.map(
        lambda x: jnp.asarray(0.02 * rng.standard_normal(x.shape, x.dtype)), shapes
    )
    program, compiling = measure.compile_seconds(network.apply, params, video)
    before = measure.peak_bytes()
    call = functools.partial(program, params, video)
    taken = measure.seconds(call, repeats=repeats)
    return {
        "clip": clip,
        "seconds_per_frame": taken / t,
        "compile_s": compiling,
        "peak_MiB": measure.peak_bytes() / measure.MIB,
        "peak_before_running_MiB": before / measure.MIB,
        "temporary_MiB": measure.temporary_bytes(program) / measure.MIB,
        "profile": part_shares(program, call) if profile else None,
    }


def part_shares(program, call) -> list[dict[str, Any]]:
    """Returns the share of the traced time per part of the network, largest first.

    XLA's own names ("fusion.12") say little; the compiled text records the module path and
    primitive that each came from. Loops are left out: their bodies are counted.
    """
    places = dict(
        re.findall(r'%?([\w.\-]+) = [^\n]*?metadata=\{[^}\n]*?op_name="([^"]+)"', program.as_text())
    )
    times = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=False):
            jax.block_until_ready(call())
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    for event in events:
        name = event.get("args", {}).get("hlo_op")
        if name is None or re.match(r"(while|call|conditional)(\.|$)", name):
            continue
        place = places.get(name, name)
        times[next((part for part, pattern in PARTS if re.search(pattern, place)), "rest")] += (
            event["dur"]
        )
    total = sum(times.values())
    return [
        {"share": time / total, "seconds": time / 1e6, "part": part}
        for part, time in times.most_common()
    ]


if __name__ == "__main__":
    main()
