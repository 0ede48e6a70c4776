"""Restoring video of any size and length with any of the models: pads, tiles, runs, joins, crops.

`model.apply` is the raw network and needs sizes that fit it; here is the one place that makes them
fit. What happens to an axis (frames, height, width) depends on its entry in `tile`:

- 0, whole: mirrored at its end to a multiple of `model.time_multiple` frames or of
  `model.pad_multiple` pixels, the very last frame or line included, and cropped afterwards. As
  published.
- n, tiled (rvrt_jax.tiling): tiles that fit the network are not padded, as published. A tile that
  does not fit (being no multiple, or larger than a video that is none) fails in the published
  code; here it is mirrored to the least multiple that the network itself needs.

A mirror longer than the axis goes back and forth, so that one frame, or three pixels, will do.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import psutil

from rvrt_jax import tiling
from rvrt_jax.data.frames import to_float
from rvrt_jax.errors import UserError

log = logging.getLogger(__name__)

# No video in [0, 1] gets here, noise included; one in 0-255 that was made float nearly always does.
LARGEST_FLOAT = 16.0


class OutOfMemory(UserError):
    """The device ran out of memory; a smaller tile may fit."""


def restore(
    model, params, frames, *, tile=None, overlap=(2, 20, 20), sigma=None, progress=None
) -> np.ndarray:
    """Restores a clip of any height, width and length.

    frames: [t, h, w, 3], uint8, uint16, or float in [0, 1]; RGB.
    tile: None for the whole clip at once, (frames, height, width) in input pixels with 0 for a
        whole axis, or "auto" for a tile that fits the free memory. overlap: what tiles share.
    sigma: noise level on the scale of 0-255, 0 included; for models with a noise channel only.
    progress: called after each tile with the number of frames restored so far, as a float.
    Returns float32 [t, scale * h, scale * w, 3], not clipped to [0, 1].
    Raises UserError for frames that are no such clip, a NaN in them, a tile that does not exceed
    its overlap, and a sigma where none belongs or none where one does.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4:
        raise UserError(f"frames have shape {frames.shape}; give [t, h, w, 3].")
    if isinstance(tile, str):
        if tile != "auto":
            raise UserError(f'tile is "{tile}"; give three numbers, None, or "auto".')
        plan = plan_tiles(model, params, frames.shape[:3], overlap=overlap)
        log.info("%s", plan)
        tile = plan.tile
    options = {"tile": tile, "overlap": overlap, "sigma": sigma, "progress": progress}
    blocks = list(_blocks(model, params, frames, **options))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def restore_stream(
    model, params, frames: Iterable, *, tile=None, overlap=(2, 20, 20), sigma=None, progress=None
) -> Iterator[np.ndarray]:
    """Restores a video frame by frame, with no more of it in memory than two tiles in time.

    frames: yields [h, w, 3] arrays; any number of them if the tile has a length. Arguments as
    `restore`'s, but for "auto" (see plan_tiles). Yields float32 [scale * h, scale * w, 3].
    """
    options = {"tile": tile, "overlap": overlap, "sigma": sigma, "progress": progress}
    for block in _blocks(model, params, frames, **options):
        yield from (frame.copy() for frame in block)  # views would keep the block in memory
        del block


def _blocks(model, params, frames, *, tile, overlap, sigma, progress) -> Iterator[np.ndarray]:
    tile, overlap = tiling.check_tile(tile, overlap)
    check_sigma(model, sigma)
    params = jax.device_put(params)
    computed = 0  # frames that any tile so far has covered

    def run(start: int, clip: list) -> np.ndarray:
        nonlocal computed
        video = np.stack(clip)
        rows, columns = (
            tiling.spans(video.shape[axis], tile[axis], overlap[axis], model.scale)
            for axis in (1, 2)
        )
        before, computed = computed, start + len(clip)
        finished = 0

        def run_tile(row: slice, column: slice) -> np.ndarray:
            nonlocal finished
            piece = _run(model, params, _as_float(video[:, row, column]), tile, sigma)
            finished += 1
            if progress is not None:
                share = finished / (len(rows) * len(columns))
                progress(before + share * (computed - before))
            return piece

        return tiling.blend_space(rows, columns, run_tile)

    yield from tiling.blend_time(tiling.windows(_checked(frames), tile[0], overlap[0]), run)


def _run(model, params, video: np.ndarray, tile, sigma) -> np.ndarray:
    """Runs the network on one tile, [t, h, w, 3] float; mirrors what does not fit, and crops."""
    t, h, w, _ = video.shape
    shape = tiling.call_shape(model, tile, (t, h, w))
    video = mirror(video, shape)
    if sigma is not None:
        noise = np.full((*shape, 1), sigma / 255, np.float32)
        video = np.concatenate([video, noise], axis=-1)
    out = np.asarray(_call(model, params, video[None]))[0]
    return out[:t, : h * model.scale, : w * model.scale]


def _as_float(video: np.ndarray) -> np.ndarray:
    return video.astype(np.float32) if video.dtype.kind == "f" else to_float(video)


def mirror(video: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Mirrors [t, h, w, c] at the ends of t, h and w to `shape`, the last one included."""
    extra = [(0, n - size) for n, size in zip(shape, video.shape, strict=False)]
    return np.pad(video, [*extra, (0, 0)], mode="symmetric")


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, video):
    return model.apply({"params": params}, video)


def _call(model, params, video: np.ndarray) -> jax.Array:
    """Runs `_apply`, compiled once per model and shape."""
    try:
        return _apply(model, params, video).block_until_ready()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        t, h, w = video.shape[1:4]
        raise OutOfMemory(
            f"the device has too little memory for {t} frames of {w}x{h} pixels at once. "
            f"Pass a smaller tile (frames, height, width)."
        ) from error


def _checked(frames: Iterable) -> Iterator[np.ndarray]:
    """Passes frames on that are [h, w, 3], of one size and type, finite, and on the right scale."""
    first = None
    for index, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
            raise UserError(f"frame {index} has shape {frame.shape}; give RGB frames [h, w, 3].")
        first = frame if first is None else first
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise UserError(
                f"frame {index} is {frame.shape} {frame.dtype}, frame 0 is {first.shape} "
                f"{first.dtype}; all frames of a video must be alike."
            )
        is_float = np.issubdtype(frame.dtype, np.floating)
        if not is_float and frame.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"frame {index} is {frame.dtype}; give uint8, uint16 or float in [0, 1]."
            )
        if is_float:
            bad = np.count_nonzero(~np.isfinite(frame))
            if bad:
                raise UserError(
                    f"frame {index} has {bad} values that are NaN or infinite; mend or drop it."
                )
            if (largest := float(np.abs(frame).max())) > LARGEST_FLOAT:
                raise UserError(
                    f"frame {index} holds {largest:g}, but float frames are in [0, 1]; "
                    f"divide by 255."
                )
        yield frame


def check_sigma(model, sigma) -> None:
    """Raises UserError if the model wants a noise level and gets none, or the other way round."""
    if model.in_channels == 3 and sigma is not None:
        raise UserError(f"sigma is {sigma}, but this model takes no noise level; leave it out.")
    if model.in_channels == 4:
        if sigma is None:
            raise UserError("this model needs the noise level: pass sigma, 0-255 (0 is valid).")
        if not 0 <= sigma <= 255:
            raise UserError(f"sigma is {sigma}; give a noise level from 0 to 255.")


def plan_tiles(
    model,
    params,
    size,
    *,
    tile: Sequence[int] | str | None = "auto",
    overlap=(2, 20, 20),
    share=0.7,
) -> tiling.Plan:
    """Chooses a tile for a video, and compiles the network for it: later calls reuse the program.

    size: (frames, height, width). tile: "auto" goes by `share` of the memory that is free and by
    what the compiler says the network takes; any other as `restore`'s.
    Raises UserError if no tile fits.
    """
    given, overlap = tiling.check_tile(None if tile == "auto" else tile, overlap)
    params = jax.device_put(params)

    def measure(plan: tiling.Plan) -> tiling.Plan:
        return dataclasses.replace(plan, device_bytes=memory_needed(model, params, plan.call))

    if tile != "auto":
        return measure(tiling.plan_tile(model, given, overlap, size))
    budget = free_memory(share)
    correction = 1.0
    while True:
        plan = tiling.plan_auto(model, size, budget, overlap=overlap, correction=correction)
        measured = measure(plan)
        if tiling.fits(measured, budget):
            return measured
        # The estimate grows, so that this plan is not chosen again.
        correction *= measured.device_bytes / plan.device_bytes


def memory_needed(model, params, call: tuple[int, int, int]) -> int:
    """Compiles the network for (t, h, w) and returns the bytes that the compiler says it takes."""
    video = jax.ShapeDtypeStruct((1, *call, model.in_channels), np.float32)
    memory = _apply.lower(model, params, video).compile().memory_analysis()
    assert memory is not None  # CPU, GPU and TPU report it
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def free_memory(share: float) -> tiling.Budget:
    """Returns `share` of the memory that is free on the first local device and on the host."""
    host = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's limit, which psutil does not know
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        host = min(host, int(text) - psutil.Process().memory_info().rss)
    stats = jax.local_devices()[0].memory_stats()
    if stats is None:  # a CPU: the network computes in the host's memory
        return tiling.Budget(int(share * host), int(share * host), shared=True)
    device = stats["bytes_limit"] - stats["bytes_in_use"]
    return tiling.Budget(int(share * device), int(share * host), shared=False)
