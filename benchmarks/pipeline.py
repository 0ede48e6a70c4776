"""The training input alone: samples per second by kind of data and number of worker processes.

    python benchmarks/pipeline.py                      # made-up sets of full-size frames
    python benchmarks/pipeline.py --workers 0 4 8
    python benchmarks/pipeline.py --data '{"dataset": "reds", "root": "data", "num_frames": 30}'
    python benchmarks/pipeline.py --beside ../before   # and a checkout of another version

Samples are those of the published recipes: 256x256 crops of 30 frames of 1280x720 (REDS), of 16
pairs of that size (GoPro), of 16 frames of 854x480 with noise (DAVIS), and REDS's also from a video
file. The frames are bundled clips, laid side by side, so that decoding costs what real frames do.
With --beside the other version measures the sets that it prepares itself, after this one.
Keep the workers' rate above the training step's clips per second, or the device waits.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import measure
import numpy as np
from absl import flags

from rvrt_jax.data import clips, pipeline
from rvrt_jax.data.options import DataOptions
from rvrt_jax.data.prepare import tfds_builder

FRAMES = 100  # of a clip


def as_published(dataset: str, root: Path, **options: Any) -> dict[str, Any]:
    """Returns `config.data` of a recipe."""
    fixed = {"photo_fraction": 0.0, "camera_fraction": 0.0, "tries": 1, "gt_size": 256}
    return {"dataset": dataset, "root": str(root), **fixed, **options}


def frames(height: int, width: int) -> list[np.ndarray]:
    """Returns frames of real pixels: bundled clips, mirrored and side by side."""
    clip = next(iter(clips.load_folders(clips.BUNDLED).values()))
    h, w = clip.shape[1:3]
    pad = ((0, 0), (0, max(0, height - h)), (0, max(0, width - w)), (0, 0))
    return list(np.pad(clip, pad, mode="symmetric")[:, :height, :width])


def write(folder: Path, images: list[np.ndarray], *, name: str) -> None:
    """Writes FRAMES images; `name` is their format, as in "{:08d}.png"."""
    folder.mkdir(parents=True)
    suffix = Path(name).suffix
    encoded = [cv2.imencode(suffix, image[..., ::-1])[1].tobytes() for image in images]
    for k, content in zip(range(FRAMES), itertools.cycle(encoded), strict=False):
        (folder / name.format(k)).write_bytes(content)


def film(path: Path, images: list[np.ndarray]) -> None:
    """Writes FRAMES images as H.264, a key frame at least every 250 frames, as x264 does."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for _, image in zip(range(FRAMES), itertools.cycle(images), strict=False):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))


def made_up(folder: Path) -> dict[str, dict[str, Any]]:
    """Writes and prepares data sets; returns `config.data` by name."""
    large, small = frames(720, 1280), frames(480, 854)
    data = folder / "data"
    write(folder / "reds/train_sharp/001", large, name="{:08d}.png")
    tfds_builder.prepare("reds", folder / "reds", data, partial=True)
    for stream in ("sharp", "blur"):
        write(folder / f"gopro/train/clip/{stream}", large, name="{:06d}.png")
    tfds_builder.prepare("gopro", folder / "gopro", data, partial=True)
    write(folder / "davis/JPEGImages/480p/clip", small, name="{:05d}.jpg")
    tfds_builder.prepare("davis", folder / "davis", data, partial=True)
    film(folder / "film.mp4", large)
    return {
        "reds": as_published("reds", data, num_frames=30),
        "gopro": as_published("gopro", data, num_frames=16, scale=1, degradation="given"),
        "davis": as_published("davis", data, num_frames=16, scale=1, degradation="noise"),
        "folder": as_published("own", folder / "reds/train_sharp", num_frames=30),
        "video": as_published("own", folder / "film.mp4", num_frames=30),
    }


def samples_per_second(config: dict[str, Any], *, workers: int, samples: int) -> float:
    """Returns the rate of single samples, after one for each process to start with."""
    options = DataOptions.read({**config, "num_workers": workers, "prefetch": 2})
    iterator = iter(pipeline.train(options, seed=0, batch_size=1))
    for _ in range(max(1, workers)):
        next(iterator)
    start = time.perf_counter()
    for _ in range(samples):
        next(iterator)
    return samples / (time.perf_counter() - start)


def other_version(folder: Path, *, workers: list[int], samples: int) -> list[dict[str, Any]]:
    """Returns the rows that another checkout's benchmark measures."""
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "benchmarks/pipeline.py", "--results", results]
        command += ["--samples", str(samples), "--workers", *map(str, workers)]
        environment = os.environ | {"PYTHONPATH": str(folder.absolute())}
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return json.loads(Path(results, "pipeline.json").read_text())["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the input pipeline.")
    parser.add_argument("--data", type=json.loads, help="JSON, config.data of a set of your own")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--sets", nargs="+", help="of the made-up sets, these alone")
    parser.add_argument("--beside", type=Path, help="a checkout of another version")
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # worker processes read them

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            own = as_published(args.data.pop("dataset"), args.data.pop("root"), **args.data)
            cases = {own["dataset"]: own}
        else:
            cases = made_up(Path(folder))
            cases = {name: cases[name] for name in args.sets or cases}
        for name, config in cases.items():
            for workers in args.workers:
                rate = samples_per_second(config, workers=workers, samples=args.samples)
                rows.append(
                    {
                        "data": name,
                        "frames": config["num_frames"],
                        "workers": workers,
                        "samples_per_s": rate,
                        "s_per_batch_of_8": 8 / rate,
                    }
                )
                measure.print_table(rows[-1:])
    result = {"samples": args.samples, "rows": rows}
    measure.print_table(rows)
    if args.beside:
        result["beside"] = other_version(args.beside, workers=args.workers, samples=args.samples)
        for row in rows:
            pair = row["data"], row["workers"]
            for before in result["beside"]:
                if (before["data"], before["workers"]) == pair:
                    factor = row["samples_per_s"] / before["samples_per_s"]
                    print(f"{pair[0]}, {pair[1]} workers: {factor:.2f} times {args.beside}'s rate")
    measure.write("pipeline", result, args.results)


if __name__ == "__main__":
    main()
