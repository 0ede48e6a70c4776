"""Running segments on devices: each device takes the next tile that waits, results stay in order.

What happens to an axis (frames, height, width) depends on its entry in `tile`:

- 0, whole: mirrored at its end to a multiple of `model.time_multiple` frames or of
  `model.pad_multiple` pixels, the very last frame or line included, and cropped afterwards. As
  published.
- n, tiled (`tiling`): tiles that fit the network are not padded, as published. A tile that does
  not fit (its size is no multiple, or larger than a video whose size is none) fails in the
  published code; here it is mirrored to the least multiple that the network itself needs.

A mirror longer than the axis goes back and forth, so that one frame, or three pixels, will do.
"""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rvrt_jax.models.contract import Network, Params, Size, traced_for
from rvrt_jax.restoration import programs, sliding, tiling
from rvrt_jax.restoration.ensemble import TURNS, Turn, turned
from rvrt_jax.restoration.segments import Segment
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.restoration.tiling import Span, call_shape

Device = Any  # a jax.Device, which type checkers do not see as a class
Place = tuple[Span, Span]  # a tile: rows and columns
Job = Callable[[Device], list[Array]]


class Runner:
    """Restores segments of one video with one network. A context manager: it may hold threads."""

    def __init__(
        self,
        model: Network,
        params: Params,
        settings: RestoreSettings,
        *,
        devices: Sequence[Device] | None = None,
        batch: int = 1,
        progress: Callable[[float], None] | None = None,
        diagnostics: dict[str, list] | None = None,
    ) -> None:
        """Arguments as `restore`'s; settings: as `checked`, with a tile.

        devices: those that share the work; by default the current one. batch: tiles at once.
        """
        self._model, self._params, self._settings = model, params, settings
        self._devices = devices or [programs.current_device()]
        self._batch, self._progress, self._diagnostics = batch, progress, diagnostics
        self._tile = settings.tile_size
        # Whether features are kept from one segment to the next. With tiles, turns or several
        # devices those of all together could be many times the memory.
        self.alone = settings.ensemble == 1 and not any(self._tile[1:]) and len(self._devices) == 1
        self._slider: sliding.Slider | None = None
        self._on_device = functools.cache(functools.partial(jax.device_put, params))
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __enter__(self) -> "Runner":
        if len(self._devices) > 1:
            own, free = threading.local(), list(self._devices)

            def take_device() -> None:
                own.device = free.pop(0)

            self._own = own
            self._pool = concurrent.futures.ThreadPoolExecutor(len(free), initializer=take_device)
        return self

    def __exit__(self, *_) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def blocks(self, segments: Iterable[Segment]) -> Iterator[tuple[Segment, Array]]:
        """Yields each segment with its restored frames, in order.

        They are float32 [t, scale * h, scale * w, 3] on a device, not clipped to [0, 1].
        """
        if self._pool is None:
            device = self._devices[0]
            for segment in segments:
                grid = self._grid(segment)
                pieces = (piece for job in self._jobs(segment, grid) for piece in job(device))
                yield segment, self._joined(segment, grid, pieces)
            return
        waiting: collections.deque[tuple[Segment, Any, list]] = collections.deque()
        homes = itertools.cycle(self._devices)
        for segment in itertools.chain(segments, [None]):
            if segment is not None:
                grid = self._grid(segment)
                futures = [self._submit(job) for job in self._jobs(segment, grid)]
                waiting.append((segment, grid, futures))
            while waiting and (segment is None or self._full(waiting)):
                ready, grid, futures = waiting.popleft()
                home = next(homes)
                pieces = (jax.device_put(p, home) for f in futures for p in f.result())
                yield ready, self._joined(ready, grid, pieces)

    def _submit(self, job: Job) -> concurrent.futures.Future[list[Array]]:
        assert self._pool is not None

        def call() -> list[Array]:
            with jax.default_device(self._own.device):
                return job(self._own.device)

        return self._pool.submit(call)

    def _full(self, waiting: Sequence[tuple[Segment, Any, list]]) -> bool:
        """Returns whether to take the oldest result: it is there, or all devices have work."""
        unfinished = [sum(not future.done() for future in futures) for *_, futures in waiting]
        devices = len(self._devices)
        return unfinished[0] == 0 or sum(unfinished) > devices or len(waiting) > devices

    def _grid(self, segment: Segment) -> tuple[list[Span], list[Span]]:
        h, w, _ = next(iter(segment.frames.values())).shape
        (_, height, width), (_, *overlap) = self._tile, self._settings.overlap_size
        scale = self._model.scale
        rows = tiling.spans(h, height, overlap[0], scale)
        return rows, tiling.spans(w, width, overlap[1], scale)

    def _joined(self, segment: Segment, grid, pieces: Iterable[Array]) -> Array:
        """Joins the tiles of a segment, and reports each."""
        total, span = len(grid[0]) * len(grid[1]), segment.stop - segment.start

        def reported() -> Iterator[Array]:
            for count, piece in enumerate(pieces, 1):
                if self._progress is not None:
                    self._progress(segment.start + span * count / total)
                yield piece

        with self._explained(segment):
            return tiling.join_space(grid[0], grid[1], reported())

    def _jobs(self, segment: Segment, grid) -> list[Job]:
        """Returns what there is to do for a segment: functions of a device that give pieces."""
        places = tiling.places(*grid)
        if segment.windows is not None:
            return [functools.partial(self._slide, segment, place) for place in places]
        groups = itertools.groupby(places, key=_size)
        jobs = []
        for _, group in groups:
            alike = list(group)
            jobs += [
                functools.partial(self._cut, segment, alike[i : i + self._batch])
                for i in range(0, len(alike), self._batch)
            ]
        return jobs

    def _cut(self, segment: Segment, places: list[Place], device: Device) -> list[Array]:
        """Restores tiles of one size of a segment that has no windows."""
        video = np.stack(list(segment.frames.values()))
        pieces = [video[:, row.read, column.read] for row, column in places]
        t, h, w, _ = pieces[0].shape
        batch = pieces + pieces[-1:] * (self._batch - len(pieces))  # always the same program

        def run(turn: Turn) -> list[Array]:
            shape = self._call_shape((t, h, w), turn)
            stacked = np.stack([mirror(turned(piece, turn), shape) for piece in batch])
            out = programs.apply(self._model, self._on_device(device), self._input(stacked, device))
            return [self._upright(out[i], (t, h, w), turn) for i in range(len(places))]

        with self._explained(segment, len(batch)), traced_for(device):
            return self._ensemble(run)

    def _slide(self, segment: Segment, place: Place, device: Device) -> list[Array]:
        """Restores one tile of a segment of windows."""
        assert segment.windows is not None
        row, column = place[0].read, place[1].read
        windows, frames, batch = segment.windows, segment.frames, self._tile[0] or 1
        h, w, _ = next(iter(frames.values()))[row, column].shape
        slider = self._slider_for(segment, device)

        def run(turn: Turn) -> list[Array]:
            shape = self._call_shape((1, h, w), turn)

            def frame(index: int) -> Array:
                piece = mirror(turned(frames[index][None, row, column], turn), (1, *shape[1:]))
                return self._input(piece, device)[0]

            parts = []
            for first in range(0, len(windows), batch):
                parts.append(slider.run(frame, windows[first : first + batch]))
                if self.alone and self._progress is not None:
                    jax.block_until_ready(parts[-1])
                    self._progress(min(segment.start + first + batch, segment.stop))
            if not self.alone:
                slider.forget()
            out = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
            return [self._upright(out, (len(windows), h, w), turn)]

        with self._explained(segment), traced_for(device):
            pieces = self._ensemble(run)
        if self._diagnostics is not None:
            for name, values in slider.diagnostics.items():
                self._diagnostics.setdefault(name, []).extend(map(float, values))
        slider.diagnostics.clear()
        return pieces

    def _slider_for(self, segment: Segment, device: Device) -> sliding.Slider:
        if not self.alone:
            return sliding.Slider(self._model, self._on_device(device), self._tile[0] or 1)
        if self._slider is None or segment.opens_scene:
            self._slider = sliding.Slider(self._model, self._on_device(device), self._tile[0] or 1)
        return self._slider

    def _input(self, video: np.ndarray, device: Device) -> Array:
        """Returns [..., h, w, 3] on a device as float32 in [0, 1], with the noise level if any."""
        if video.dtype.kind == "f":
            result = jax.device_put(video.astype(np.float32), device)
        else:
            largest = np.float32(np.iinfo(video.dtype).max)
            result = programs.to_float(jax.device_put(video, device), largest)
        if self._settings.sigma is not None:
            level = np.full((*video.shape[:-1], 1), self._settings.sigma / 255, np.float32)
            result = jnp.concatenate([result, jax.device_put(level, device)], axis=-1)
        return result

    def _ensemble(self, run: Callable[[Turn], list[Array]]) -> list[Array]:
        """Returns the mean of run(turn), whose results are upright, over the orientations."""
        count = self._settings.ensemble
        pieces = run(TURNS[0])
        for turn in TURNS[1:count]:
            pieces = [programs.add_shared(a, b) for a, b in zip(pieces, run(turn), strict=True)]
        if count > 1:
            pieces = [piece / count for piece in pieces]  # 4 or 8, which is exact
        return jax.block_until_ready(pieces)

    def _call_shape(self, size: Size, turn: Turn) -> Size:
        """Returns what the network gets of a piece (t, h, w) in this orientation."""
        (t, h, w), (time, height, width) = size, self._tile
        if turn[0]:
            h, w, height, width = w, h, width, height
        return call_shape(self._model, (time, height, width), (t, h, w))

    def _upright(self, out: Array, size: Size, turn: Turn) -> Array:
        """Crops what mirroring added to a turned piece of `size` (upright), and turns it back."""
        t, h, w = size
        h, w = (w, h) if turn[0] else (h, w)
        return programs.upright(out, (t, h * self._model.scale, w * self._model.scale), turn)

    def _explained(self, segment: Segment, batch: int = 1) -> contextlib.AbstractContextManager:
        h, w, _ = next(iter(segment.frames.values())).shape
        count, of = (len(segment.frames), "frames") if segment.windows is None else (
            self._tile[0] or 1, "windows")  # fmt: skip
        height, width = _least(self._tile[1], h), _least(self._tile[2], w)
        shape = self._call_shape((count, height, width), TURNS[0])
        return programs.explained((batch * shape[0], *shape[1:]), of)


def _least(tile: int, length: int) -> int:
    return min(tile or length, length)


def _size(place: Place) -> tuple[int, ...]:
    return tuple(span.read.stop - span.read.start for span in place)


def mirror(video: np.ndarray, shape: Size) -> np.ndarray:
    """Mirrors [t, h, w, c] at the ends of t, h and w to `shape`, the last one included."""
    extra = [(0, n - size) for n, size in zip(shape, video.shape, strict=False)]
    return np.pad(video, [*extra, (0, 0)], mode="symmetric")
