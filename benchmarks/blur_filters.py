"""What a frame's surroundings tell about its motion blur: one linear filter for all pixels.

    python benchmarks/blur_filters.py

The differences that a network could be shown beside each frame are fitted to what blur took away,
by least squares on all training clips, and scored on the two clips that are held out. All are seen
by shaking cameras. m is the motion from a frame to the next, of each pixel by SpyNet's flow, or
the one that most of the frame has ("camera"); the neighbours are warped by each pixel's.
Clips: python -m rvrt_jax.data.prepare real --output data/real.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax import Array

from rvrt_jax.data import blur
from rvrt_jax.errors import UserError, exit_code
from rvrt_jax.evaluation.metrics import psnr
from rvrt_jax.models import beside
from rvrt_jax.models.spynet import SpyNet
from rvrt_jax.ops.resize import bicubic_shrink, resize_bilinear
from rvrt_jax.ops.sample import warp
from rvrt_jax.weights.load import spynet_params

FITTED = {name: (5,) for name in ("bunny", "ocean_0", "ocean_1", "park", "tree")}  # seeds of shakes
FITTED |= {f"gym_multi_{i}": (5,) for i in range(1, 5)}
FITTED |= {f"gym_single_{i}": (5,) for i in range(1, 4)}
SCORED = {"carphone": (0, 1, 2), "gym_single_4": (0, 1, 2)}
FRAMES, SIZE, MOMENTS, EDGE = 8, 128, 17, 6
# Second differences with a step along m, of the frame and of its neighbours, and these neighbours'
# own differences from the frame; each a sum over both neighbours.
STEPS = {"m/4": 0.25, "m/2": 0.5, "3m/4": 0.75, "m": 1.0}
OF_EACH = tuple(f"{whose} {step}" for whose in ("own", "theirs") for step in STEPS)
DIFFERENCES = ("theirs", *OF_EACH, *(f"{name}, camera" for name in OF_EACH))
CHOICES = (
    ("own m/4", "own m/2"),
    ("own m/4", "own m"),
    ("theirs",),
    ("own m/4", "own m/2", "theirs"),
    ("own m/4", "own m", "theirs m/2", "theirs m"),
    ("own m/4", "own m/2", "own 3m/4", "theirs m/2", "theirs m"),
    # What a network with along_motion corrects, at nine tenths of such weights.
    tuple(
        f"{name}, camera" for name in ("own m/4", "own m/2", "own 3m/4", "theirs m/2", "theirs m")
    ),
    tuple(f"{name}, camera" for name in OF_EACH),
    DIFFERENCES,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit one filter to what motion blur takes away.")
    parser.add_argument("--data", type=Path, default=Path("data/real"))
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()
    fitted = [sample for clip in FITTED for sample in samples(args.data, clip, FITTED[clip])]
    scored = {clip: list(samples(args.data, clip, SCORED[clip])) for clip in SCORED}
    rows = []
    for names in CHOICES:
        chosen = [DIFFERENCES.index(name) for name in names]
        weights = fit(fitted, chosen)
        row: dict[str, Any] = {
            "shown": ", ".join(names),
            "weights": " ".join(f"{w:.2f}" for w in weights),
        }
        for clip, each in scored.items():
            gains = [gain(*sample, chosen, weights) for sample in each]
            row[f"{clip}_dB"] = round(float(np.mean(gains)), 2)
        rows.append(row)
    measure.print_table(rows)
    measure.write("blur_filters", {"rows": rows}, args.results)


def samples(
    folder: Path, clip: str, seeds: tuple[int, ...]
) -> Iterator[tuple[Array, Array, Array]]:
    """Yields (differences [h, w, 3, k], blurred, sharp) of each frame that has both neighbours.

    Raises UserError if the clip is not in the folder.
    """
    path = folder / f"{clip}.npy"
    if not path.exists():
        raise UserError(
            f"{path} is missing. Run: python -m rvrt_jax.data.prepare real --output {folder}"
        )
    video = np.load(path, mmap_mode="r")
    start = (len(video) - FRAMES) // 2
    y, x = ((size - SIZE) // 2 for size in video.shape[1:3])
    middle = np.array(video[start : start + FRAMES, y : y + SIZE, x : x + SIZE])
    for seed in seeds:
        views = blur.shaken(middle, np.random.default_rng(seed), steps=MOMENTS)
        blurred, sharp = (jnp.asarray(view, jnp.float32) / 255 for view in views)
        for shown, frame, truth in zip(
            differences(blurred), blurred[1:-1], sharp[1:-1], strict=True
        ):
            inside = slice(EDGE, -EDGE), slice(EDGE, -EDGE)
            yield shown[inside], frame[inside], truth[inside]


@jax.jit
def differences(x: Array) -> Array:
    """Returns what `DIFFERENCES` names for all frames but the first and last, [t, h, w, 3, k]."""
    spynet = SpyNet().bind({"params": spynet_params()})
    small = jax.vmap(lambda frame: bicubic_shrink(frame, factor=2))(x)

    _, h, w, _ = x.shape

    def flow(frame: Array, neighbour: Array) -> Array:  # found at half of the size, as networks do
        return 2 * jax.vmap(lambda f: resize_bilinear(f, (h, w)))(spynet(frame, neighbour))

    to_before, to_behind = flow(small[1:-1], small[:-2]), flow(small[1:-1], small[2:])
    frame, before, behind = x[1:-1], x[:-2], x[2:]
    local = (to_behind - to_before) / 2
    at = jax.vmap(lambda image, flow: warp(image, flow, border="border"))
    found = [at(before, to_before) + at(behind, to_behind) - 2 * frame]
    # Along each pixel's motion by the warping itself; along the camera's before it, as networks do.
    camera = beside.common_motion(local)[:, 0, 0]
    shifted = jax.vmap(beside.shifted)

    def along_each(image: Array, flow: Array, step: float) -> Array:
        ends = at(image, flow + step * local) + at(image, flow - step * local)
        return ends - 2 * at(image, flow)

    def along_camera(image: Array, flow: Array, step: float) -> Array:
        ends = shifted(image, step * camera) + shifted(image, -step * camera)
        return at(ends - 2 * image, flow)

    for second in (along_each, along_camera):
        found += [second(frame, jnp.zeros_like(local), step) for step in STEPS.values()]
        found += [
            second(before, to_before, step) + second(behind, to_behind, step)
            for step in STEPS.values()
        ]
    return jnp.stack(found, axis=-1)


def fit(every: list[tuple[Array, Array, Array]], chosen: list[int]) -> np.ndarray:
    """Returns the weights of the chosen differences whose sum is nearest to sharp - blurred."""
    square, product = np.zeros((len(chosen),) * 2), np.zeros(len(chosen))
    for shown, blurred, sharp in every:
        columns = np.asarray(shown, np.float64)[..., chosen].reshape(-1, len(chosen))
        square += columns.T @ columns
        product += columns.T @ np.asarray(sharp - blurred, np.float64).reshape(-1)
    return np.linalg.solve(square, product)


def gain(
    shown: Array, blurred: Array, sharp: Array, chosen: list[int], weights: np.ndarray
) -> float:
    """Returns by how many dB the filter raises the PSNR of a frame."""
    made = np.asarray(blurred) + np.asarray(shown)[..., chosen] @ weights
    frames = (np.clip(made, 0, 1), np.asarray(blurred))
    after, before = (psnr(255 * frame, 255 * np.asarray(sharp)) for frame in frames)
    return after - before


if __name__ == "__main__":
    sys.exit(exit_code(main))
