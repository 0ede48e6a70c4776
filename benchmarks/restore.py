"""The engine of restoration: end to end against the network alone, the host's part, and devices.

    python benchmarks/restore.py
    python benchmarks/restore.py --frames 8 --size 32x48 --devices 1 2   # a try

Three things, each measured in processes that do nothing else:
- a film of 48 frames of 160x96, restored by edvr_tiny from file to file, over the time of the
  network's calls alone on the same frames;
- the way of one frame of 4K from the device to the encoder's input, in integers as now and in
  floats as before;
- the same film on 1, 2 and 4 virtual devices, which share the cores of this machine: their overhead
  is what they take longer than one.

Beside the time on the clock stands the time of the processor, which other programs disturb less.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np

from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.media.frames import open_frames, open_writer, to_uint
from rvrt_jax.restoration import programs
from rvrt_jax.restoration.clip import OutputOptions, Stages, restore_clip
from rvrt_jax.restoration.restore import restored_blocks
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import load as loading


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the engine of restoration.")
    parser.add_argument("--weights", default="edvr_tiny")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", default="96x160", metavar="HxW")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(CASES[args.case.pop("what")](**args.case)))
        return
    film = {"weights": args.weights, "frames": args.frames, "size": args.size}
    film["repeats"] = args.repeats
    whole = measure.in_subprocess(__file__, {"what": "film", **film})
    print(
        f"end to end {whole['end_to_end_s']:.2f} s, the network alone {whole['network_s']:.2f} s: "
        f"{whole['ratio']:.3f} times; of the processor {whole['cpu_ratio']:.3f} times"
    )
    host = measure.in_subprocess(__file__, {"what": "host", "repeats": args.repeats})
    print(
        f"a frame of 4K to the encoder: {host['integers_ms']:.0f} ms in integers, "
        f"{host['floats_ms']:.0f} ms in floats: {host['ratio']:.3f}"
    )
    rows = []
    for count in args.devices:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(count)
        found = measure.in_subprocess(__file__, {"what": "film", **film, "tile": (1, 48, 0)})
        keys = ("end_to_end_s", "end_to_end_cpu_s")
        rows.append({"devices": count} | {key: found[key] for key in keys})
    for row in rows:
        row["over one device"] = row["end_to_end_s"] / rows[0]["end_to_end_s"]
        row["cpu over one device"] = row["end_to_end_cpu_s"] / rows[0]["end_to_end_cpu_s"]
    measure.print_table(rows)
    gflops = measure.matmul_gflops()
    result = {"film": whole, "host": host, "devices": rows, "matmul_gflops": gflops}
    measure.write("restore", result, args.results)


def film(
    weights: str, frames: int, size: str, repeats: int, tile: Any = None
) -> dict[str, float | str]:
    """Restores a film from file to file, and its frames by the network alone, in turns."""
    model, params = loading.load(weights)
    height, width = map(int, size.split("x"))
    clip = np.concatenate(list(load_folders(BUNDLED).values()))[:, :height, :width]
    video = np.concatenate([clip] * -(-frames // len(clip)))[:frames]
    settings = RestoreSettings(tile=tile)
    stages = Stages((model, jax.device_put(params)))
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        source, output = f"{folder}/in.mkv", f"{folder}/out.mp4"
        with open_writer(source, fps=25, height=height, width=width, codec="ffv1") as writer:
            for frame in video:
                writer.write(frame)
        for turn in range(repeats + 1):  # the first one compiles
            started = _now()
            for block in restored_blocks(model, stages.first[1], [video], settings):
                block.block_until_ready()
            alone.append(_now() - started)
            started = _now()
            with open_frames(source) as opened:
                options = OutputOptions(overwrite=turn > 0)
                restore_clip(stages, opened, output, settings, options, name="film")
            whole.append(_now() - started)
    network, end_to_end = (np.median(times[1:], axis=0) for times in (alone, whole))
    ratio, cpu_ratio = end_to_end / network
    return {
        "network_s": network[0],
        "end_to_end_s": end_to_end[0],
        "ratio": ratio,
        "network_cpu_s": network[1],
        "end_to_end_cpu_s": end_to_end[1],
        "cpu_ratio": cpu_ratio,
        "device": jax.devices()[0].device_kind,
    }


def _now() -> np.ndarray:
    """Returns the time on the clock and of the processor, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def host(repeats: int) -> dict[str, float]:
    """Takes a frame of 4K from the device to what the encoder is given, both ways."""
    frame = jax.random.uniform(jax.random.key(0), (1, 2160, 3840, 3))
    largest = np.float32(255)

    def integers() -> np.ndarray:
        found = programs.to_integers(frame, largest, np.dtype(np.uint8))
        assert np.asarray(programs.all_finite(frame)).all()
        return np.asarray(found)[0]

    def floats() -> np.ndarray:
        # As before: pieces come to the host, where two tiles in time are averaged.
        held = np.array(frame)
        held[:1] += np.asarray(frame)
        held /= np.full((1, 1, 1, 1), 2, np.float32)
        return to_uint(held[0].copy(), 8)

    times = [1000 * measure.seconds(way, repeats=max(9, repeats)) for way in (integers, floats)]
    return {"integers_ms": times[0], "floats_ms": times[1], "ratio": times[0] / times[1]}


CASES = {"film": film, "host": host}

if __name__ == "__main__":
    main()
