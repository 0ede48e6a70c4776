"""Restoring video of any size and length with any of the models: pads, tiles, runs, joins, crops.

`model.apply` is the raw network and needs sizes that fit it; here is the one place that makes them
fit. What happens to an axis (frames, height, width) depends on its entry in `tile`:

- 0, whole: mirrored at its end to a multiple of `model.time_multiple` frames or of
  `model.pad_multiple` pixels, the very last frame or line included, and cropped afterwards. As
  published.
- n, tiled (`tiling`): tiles that fit the network are not padded, as published. A tile that
  does not fit (being no multiple, or larger than a video that is none) fails in the published
  code; here it is mirrored to the least multiple that the network itself needs.

A mirror longer than the axis goes back and forth, so that one frame, or three pixels, will do.

A model with a `window` (EDVR) makes one frame of several: it slides along the video
(`sliding`), which is never cut in time, and its tiles in space are those of above.

Self-ensemble runs every tile flipped and turned as well, and takes the mean.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import psutil

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import to_float
from rvrt_jax.restoration import sliding, tiling
from rvrt_jax.restoration.ensemble import ENSEMBLES, TURNS, Turn, turned, turned_back

log = logging.getLogger(__name__)

# No video in [0, 1] gets here, noise included; one in 0-255 that was made float nearly always does.
LARGEST_FLOAT = 16.0


class OutOfMemory(UserError):
    """The device ran out of memory; a smaller tile may fit."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How a video is restored; the keywords of `restore`, checked."""

    tile: tuple[int, int, int]
    overlap: tuple[int, int, int] = (2, 20, 20)
    sigma: float | None = None
    border: str | None = None
    ensemble: int = 1
    progress: Callable[[float], None] | None = None
    told: dict[str, list] | None = None


def restore(
    model,
    params,
    frames,
    *,
    tile=None,
    overlap=(2, 20, 20),
    sigma=None,
    border=None,
    ensemble=1,
    progress=None,
    told=None,
) -> np.ndarray:
    """Restores a clip of any height, width and length.

    frames: [t, h, w, 3], uint8, uint16, or float in [0, 1]; RGB.
    tile: None for the whole clip at once, (frames, height, width) in input pixels with 0 for a
        whole axis, or "auto" for a tile that fits the free memory. overlap: what tiles share.
        For models with a window, frames is how many windows are computed at once, 0 for one.
    sigma: noise level on the scale of 0-255, 0 included; for models with a noise channel only.
    border: which frames stand in where a window reaches beyond the clip: "replicate",
        "reflection", "reflection_circle" or "circle"; None for the model's published rule; for
        models with a window only. Clips too short for the rule get "replicate".
    ensemble: 4 or 8 for the mean over that many flipped (8: and transposed) runs.
    progress: called after each tile with the number of frames restored so far, as a float.
    told: a dict to fill with what the model tells of itself, a list of values for each name:
        EDVR's offset_mean and offset_max, in pixels.
    Returns float32 [t, scale * h, scale * w, 3], not clipped to [0, 1].
    Raises UserError for frames that are no such clip, a NaN in them, a tile that does not exceed
    its overlap, and an option that the model has no use for or lacks.
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
    options = _checked_options(model, tile, overlap, sigma, border, ensemble, progress, told)
    blocks = list(_blocks(model, params, frames, options))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def restore_stream(
    model,
    params,
    frames: Iterable,
    *,
    tile=None,
    overlap=(2, 20, 20),
    sigma=None,
    border=None,
    ensemble=1,
    progress=None,
    told=None,
) -> Iterator[np.ndarray]:
    """Restores a video frame by frame, with no more of it in memory than two tiles in time.

    frames: yields [h, w, 3] arrays; any number of them if the tile has a length. Arguments as
    `restore`'s, but for "auto" (see plan_tiles). Yields float32 [scale * h, scale * w, 3].
    """
    options = _checked_options(model, tile, overlap, sigma, border, ensemble, progress, told)
    for block in _blocks(model, params, frames, options):
        yield from (frame.copy() for frame in block)  # views would keep the block in memory
        del block


def _checked_options(model, tile, overlap, sigma, border, ensemble, progress, told) -> Options:
    tile, overlap = check_tile(model, tile, overlap)
    check_options(model, sigma=sigma, border=border, ensemble=ensemble)
    return Options(tile, overlap, sigma, border, ensemble, progress, told)


def _blocks(model, params, frames: Iterable, options: Options) -> Iterator[np.ndarray]:
    """Yields the restored video in pieces of some frames, float32 [t, scale * h, scale * w, 3]."""
    params = jax.device_put(params)
    slide_or_cut = _cut_blocks if model.window is None else _sliding_blocks
    return slide_or_cut(model, params, _checked(frames), options)


def _cut_blocks(model, params, frames: Iterable, options: Options) -> Iterator[np.ndarray]:
    """`_blocks` for models that take any number of frames: in tiles of time."""
    computed = 0  # frames that any tile so far has covered

    def run(start: int, clip: list) -> np.ndarray:
        nonlocal computed
        video = np.stack(clip)
        before, computed = computed, start + len(clip)

        def run_tile(row: slice, column: slice) -> np.ndarray:
            piece = _as_float(video[:, row, column])
            return _ensemble(options, lambda turn: _run(model, params, piece, turn, options))

        size, span = video.shape[1:3], (before, computed)
        return _over_tiles(model, size, run_tile, span, options)

    yield from tiling.blend_time(tiling.windows(frames, options.tile[0], options.overlap[0]), run)


def _sliding_blocks(model, params, frames: Iterable, options: Options) -> Iterator[np.ndarray]:
    """`_blocks` for models with a window: some windows at a time, each frame read once.

    The features of whole frames are kept from one block to the next; with tiles or an ensemble
    those of one piece at a time, for all of them together could be many times the memory.
    """
    batch, alone = options.tile[0] or 1, options.ensemble == 1 and not any(options.tile[1:])
    together = batch if alone else tiling.windows_together((batch, 1, 1))
    slider = sliding.Slider(model, params, batch)
    if options.told is not None:
        slider.told = options.told
    done = 0
    for held, indices in sliding.windows(
        frames, model.window, options.border or model.border, together
    ):
        size = held[indices[0][0]].shape[:2]

        def run_tile(row: slice, column: slice, held=held, indices=indices) -> np.ndarray:
            h, w = held[indices[0][0]][row, column].shape[:2]

            def run_turned(turn: Turn) -> np.ndarray:
                shape = _call_shape(model, (1, h, w), turn, options)

                def frame(index: int) -> np.ndarray:
                    piece = turned(_as_float(held[index][row, column])[None], turn)
                    return mirror(piece, (1, *shape[1:]))[0]

                with _explained(shape, "windows"):
                    out = np.concatenate(
                        [
                            slider.run(frame, indices[i : i + batch])
                            for i in range(0, len(indices), batch)
                        ]
                    )
                if not alone:
                    slider.forget()
                return _upright(model, out, (h, w), turn)

            return _ensemble(options, run_turned)

        before, done = done, done + len(indices)
        yield _over_tiles(model, size, run_tile, (before, done), options)


def _over_tiles(model, size, run_tile: Callable, span: tuple[int, int], options) -> np.ndarray:
    """Runs and joins the tiles of some frames, and reports; they count from span[0] to span[1]."""
    rows, columns = (
        tiling.spans(length, tile, overlap, model.scale)
        for length, tile, overlap in zip(size, options.tile[1:], options.overlap[1:], strict=True)
    )
    finished = itertools.count(1)

    def run(row: slice, column: slice) -> np.ndarray:
        piece = run_tile(row, column)
        if options.progress is not None:
            share = next(finished) / (len(rows) * len(columns))
            options.progress(span[0] + share * (span[1] - span[0]))
        return piece

    return tiling.blend_space(rows, columns, run)


def _ensemble(options: Options, run: Callable[[Turn], np.ndarray]) -> np.ndarray:
    """Returns the mean of run(turn), which gives its result upright, over the orientations."""
    if options.ensemble == 1:
        return run(TURNS[0])
    total = functools.reduce(np.add, map(run, TURNS[: options.ensemble]))
    return total / np.float32(options.ensemble)


def _call_shape(model, size, turn: Turn, options: Options) -> tuple[int, int, int]:
    """Returns what the network gets of a piece (t, h, w) in this orientation."""
    (t, h, w), (time, height, width) = size, options.tile
    if turn[0]:
        h, w, height, width = w, h, width, height
    return tiling.call_shape(model, (time, height, width), (t, h, w))


def _upright(model, out: np.ndarray, size: tuple[int, int], turn: Turn) -> np.ndarray:
    """Crops what mirroring added to a turned piece of `size` (upright), and turns it back."""
    h, w = reversed(size) if turn[0] else size
    return turned_back(out[:, : h * model.scale, : w * model.scale], turn)


def _run(model, params, video: np.ndarray, turn: Turn, options: Options) -> np.ndarray:
    """Runs the network on one tile, [t, h, w, 3] float; mirrors what does not fit, and crops."""
    t, h, w, _ = video.shape
    shape = _call_shape(model, (t, h, w), turn, options)
    video = mirror(turned(video, turn), shape)
    if options.sigma is not None:
        noise = np.full((*shape, 1), options.sigma / 255, np.float32)
        video = np.concatenate([video, noise], axis=-1)
    out = np.asarray(_call(model, params, video[None]))[0]
    return _upright(model, out[:t], (h, w), turn)


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
    with _explained(video.shape[1:4]):
        return _apply(model, params, video).block_until_ready()


@contextlib.contextmanager
def _explained(shape: tuple[int, ...], of: str = "frames") -> Iterator[None]:
    """Says what to do when the device runs out of memory for (frames, height, width)."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        t, h, w = shape
        raise OutOfMemory(
            f"the device has too little memory for {t} {of} of {w}x{h} pixels at once. "
            f"Pass a smaller tile ({of}, height, width)."
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


def check_tile(model, tile, overlap) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Returns tile and overlap as two triples; raises UserError as `tiling.check_tile` does.

    Windows slide: no frames are shared between tiles of a model that has one.
    """
    if model.window is not None:
        overlap = (0, *tuple(overlap)[1:])
    return tiling.check_tile(tile, overlap)


def check_options(model, *, sigma=None, border=None, ensemble=1) -> None:
    """Raises UserError for an option that the model has no use for, lacks, or does not know."""
    if model.in_channels == 3 and sigma is not None:
        raise UserError(f"sigma is {sigma}, but this model takes no noise level; leave it out.")
    if model.in_channels == 4:
        if sigma is None:
            raise UserError("this model needs the noise level: pass sigma, 0-255 (0 is valid).")
        if not 0 <= sigma <= 255:
            raise UserError(f"sigma is {sigma}; give a noise level from 0 to 255.")
    if ensemble not in ENSEMBLES:
        raise UserError(f"ensemble is {ensemble}; give 1 (none), 4 (flips) or 8 (and transposed).")
    if model.window is not None:
        sliding.check(model, model.border if border is None else border)
    elif border is not None:
        raise UserError(
            f"border is {border!r}, but this model takes whole clips, not windows; leave it out."
        )


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
    given, overlap = check_tile(model, None if tile == "auto" else tile, overlap)
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
    if model.window is not None:
        return sliding.compiled_bytes(model, params, call)
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
