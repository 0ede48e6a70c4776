"""From a source of frames to a file: decoding, restoring and encoding at the same time.

A thread reads frames ahead, this one restores segment after segment on all local devices, and a
thread stores and encodes what is finished. Between them lie queues of a few frames and segments, so
that memory does not grow with the length of a video. Frames leave a device as integers, clamped and
rounded there. What is finished lies in a journal: the same command goes on after it.
"""

import collections
import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.media.frame_source import DTYPES
from rvrt_jax.media.frames import FrameWriter
from rvrt_jax.models.contract import Network, Params
from rvrt_jax.restoration import programs, scenes
from rvrt_jax.restoration.journal import Journal
from rvrt_jax.restoration.plan import Plan
from rvrt_jax.restoration.restore import checked_scenes
from rvrt_jax.restoration.runner import Runner
from rvrt_jax.restoration.segments import Segment, segments
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.restoration.tiling import join_time

READ_AHEAD = 8  # frames that are decoded before they are asked for
FINISHED_AHEAD = 1  # segments that wait for the encoder
_END = ()  # what is put after the last segment


class Watcher(Protocol):
    """Sees what is restored, for scores and pictures."""

    def add(self, original: np.ndarray, restored: np.ndarray) -> None:
        """Takes the next frame, [h, w, 3]: as it was read, and restored, in 8 bits."""
        ...

    def end(self) -> None:
        """Called after the last frame, before the output is complete; may raise."""
        ...


@dataclasses.dataclass(frozen=True)
class Work:
    """What is restored, and how its frames become what is written."""

    model: Network
    params: Params
    settings: RestoreSettings
    # Of the integers that are written: 8 or 16.
    bits: int = 8
    # "off": the video is one scene, as published.
    scene_cuts: Literal["auto", "off"] = "off"
    # Changes finished frames on the device, float32 [t, h, w, 3], before they are rounded.
    finish: Callable[[Array], Array] | None = None
    # Called with the number of frames restored so far, after each tile.
    progress: Callable[[float], None] | None = None
    # Filled with what the network says of itself.
    diagnostics: dict[str, list] | None = None
    # Sees all frames, in order.
    watcher: "Watcher | None" = None


def restore_to(
    work: Work,
    plan: Plan,
    frames: Iterable[np.ndarray],
    writer: FrameWriter,
    journal: Journal | None,
) -> int:
    """Restores frames and writes them, those that the journal has without computing them again.

    plan: how they are cut. Returns how many frames were restored before, or read from the journal.
    Raises UserError as `restore` does, for frames that come out with a NaN, and whatever reader and
    writer raise; what was finished is then in the journal.
    """
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(_Reader(frames, keep=work.watcher is not None))
        sink = stack.enter_context(_Sink(writer, journal, work, reader.originals))
        settings = dataclasses.replace(work.settings, tile=plan.tile, overlap=plan.overlap)
        settings = settings.checked(work.model)
        runner = stack.enter_context(
            Runner(
                work.model,
                work.params,
                settings,
                devices=jax.local_devices(),
                batch=plan.batch,
                progress=work.progress,
                diagnostics=work.diagnostics,
            )
        )
        split = scenes.split(reader) if work.scene_cuts == "auto" else [reader]
        found = segments(checked_scenes(split), work.model, settings)
        known = frozenset(journal.done) if journal is not None else frozenset()
        wanted = _without_done(found, known, sink.stored)
        order: collections.deque[Segment] = collections.deque()

        def blocks() -> Iterator[tuple[int, int, Array]]:
            for segment, block in runner.blocks(wanted):
                order.append(segment)
                yield segment.start, segment.stop, block

        for block in join_time(blocks()):
            segment = order.popleft()
            if (segment.start, segment.stop) not in known:
                sink.restored(segment.start, segment.stop, block)
            del block
        sink.finish()
    return sum(stop - start for start, stop in known)


def _without_done(
    found: Iterable[Segment], done: frozenset, stored: Callable[[int, int], None]
) -> Iterator[Segment]:
    """Yields the segments that are to be restored, and tells of those that are stored.

    Those stored that share frames with the first one to be restored are restored too: what they
    share goes into its mean.
    """
    before: list[Segment] = []
    for segment in found:
        before = [] if segment.opens_scene else [b for b in before if b.end > segment.start]
        if (segment.start, segment.stop) in done:
            stored(segment.start, segment.stop)
            before.append(segment)
        else:
            yield from before
            before = []
            yield segment


class _Reader:
    """Reads frames in a thread, a few ahead. Iterating raises what reading raised, in its place."""

    def __init__(self, frames: Iterable[np.ndarray], *, keep: bool) -> None:
        """keep: appends each frame to `originals`, from which it must be taken."""
        self.originals: collections.deque[np.ndarray] | None = collections.deque() if keep else None
        self._queue: queue.Queue = queue.Queue(READ_AHEAD)
        self._stopped = threading.Event()
        # A daemon: a signal may come before anybody is there who would stop it.
        self._thread = threading.Thread(target=self._run, args=(frames,), daemon=True)

    def __enter__(self) -> "_Reader":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            frame = self._queue.get()
            if frame is None:
                return
            if isinstance(frame, BaseException):
                raise frame
            if self.originals is not None:
                self.originals.append(frame)
            yield frame

    def _run(self, frames: Iterable[np.ndarray]) -> None:
        try:
            for frame in frames:
                if not self._put(frame):
                    return
            self._put(None)
        except BaseException as error:  # raised where the frame is missing
            self._put(error)

    def _put(self, item: Any) -> bool:
        """Puts an item into the queue; False if nobody waits for it any more."""
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False


class _Sink:
    """Takes finished segments in order; a thread stores and encodes them."""

    def __init__(
        self,
        writer: FrameWriter,
        journal: Journal | None,
        work: Work,
        originals: collections.deque[np.ndarray] | None,
    ) -> None:
        self._writer, self._journal, self._work = writer, journal, work
        self._originals = originals
        self._queue: queue.Queue = queue.Queue(FINISHED_AHEAD)
        self._error: BaseException | None = None
        self._only_store = False
        self._thread = threading.Thread(target=self._run, daemon=True)  # as `_Reader`'s

    def __enter__(self) -> "_Sink":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if self._thread.is_alive():
            # What the device has finished before an error is not computed again: it is stored, and
            # a run that goes on writes it.
            self._only_store = kind is not None
            self._queue.put(None)
            self._thread.join()

    def stored(self, start: int, stop: int) -> None:
        """Takes a segment that is in the journal."""
        self._put((start, stop, None, None))

    def restored(self, start: int, stop: int, block: Array) -> None:
        """Takes a segment from the device; raises UserError if a value of it is not finite."""
        if self._work.finish is not None:
            block = self._work.finish(block)
        frames = self._integers(block, self._work.bits, start)
        small = frames
        if self._work.watcher is not None and self._work.bits != 8:
            small = self._integers(block, 8, start)
        self._put((start, stop, frames, small))

    def finish(self) -> None:
        """Returns when everything is written; raises what writing raised."""
        self._put(_END)
        self._thread.join()
        if self._error is not None:
            raise self._error

    @staticmethod
    def _integers(block: Array, bits: int, start: int) -> np.ndarray:
        dtype = DTYPES[bits]
        frames = programs.to_integers(block, np.float32(np.iinfo(dtype).max), dtype)
        finite = np.asarray(programs.all_finite(block))
        if not finite.all():
            index = int(np.argmin(finite))
            bad = np.count_nonzero(~np.isfinite(block[index]))
            raise UserError(
                f"frame {start + index} comes out of the network with {bad} of {block[0].size} "
                "values that are NaN or infinite and cannot become pixels. Check the weights and "
                "the input, or compute in float32."
            )
        return np.asarray(frames)

    def _put(self, item: Any) -> None:
        while True:
            if self._error is not None:
                raise self._error
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return

    def _drop_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def _run(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                if item == _END:
                    if self._work.watcher is not None:
                        self._work.watcher.end()
                    return
                self._write(*item)
        except BaseException as error:  # raised by the thread that restores
            self._error = error
            self._drop_waiting()

    def _write(self, start: int, stop: int, frames: Any, small: np.ndarray | None) -> None:
        if frames is None:
            if self._only_store:
                return
            assert self._journal is not None
            frames = self._journal.read(start, stop)
        elif self._journal is not None:
            self._journal.write(start, stop, frames)
        if self._only_store:
            return
        for index, frame in enumerate(frames):
            self._writer.write(frame)
            if self._originals is not None and self._work.watcher is not None:
                shown = frame if small is None else small[index]
                self._work.watcher.add(self._originals.popleft(), shown)
