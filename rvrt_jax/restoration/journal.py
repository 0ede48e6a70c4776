"""What is finished of a restoration, on disk beside its output, so that it can go on.

`out.mp4.part/` holds `journal.json`, which says what is restored and how, and a file for each
finished segment, its frames stored without loss. The same command goes on after the last segment.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rvrt_jax import files
from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames, open_writer
from rvrt_jax.models.contract import Params
from rvrt_jax.restoration.plan import Plan

_log = logging.getLogger(__name__)

_FILE, _VERSION, _FINISHED = "journal.json", 1, "finished"
_SEGMENTS = "????????-????????.mkv"
_SAMPLES, _SAMPLE_BYTES = 64, 2**16  # of a file's content, spread over it


class Journal:
    """The journal of one output. A context manager: no other process may write it meanwhile."""

    def __init__(self, output: str | os.PathLike, about: dict[str, Any], *, fresh: bool) -> None:
        """Opens the journal of `output`, or begins one.

        about: what is restored and how; JSON must be able to hold it. fresh: throws away a journal
        of something else. Raises UserError for one otherwise, and if another process is at it.
        """
        target = os.path.realpath(output)
        self.folder = Path(f"{target}.part")
        self._about = json.loads(json.dumps(about))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.folder, os.O_RDONLY)
        try:
            if not files.lock(self._handle):
                raise UserError(
                    f"another process is restoring {output}: it holds {self.folder}. Wait for it, "
                    "or choose another output."
                )
            self._plan = self._open(output, fresh=fresh)
        except BaseException:
            self.close()
            raise
        self.done = list(self._finished()) if self._plan is not None else []

    def _open(self, output: str | os.PathLike, *, fresh: bool) -> dict[str, Any] | None:
        """Returns the plan that the journal goes by; None for a new one."""
        file = self.folder / _FILE
        if not file.exists() or (self.folder / _FINISHED).exists():
            self._empty()
            return None
        content = json.loads(file.read_text())  # written whole, or not at all
        theirs = content.get("about", {}) if content.get("version") == _VERSION else {}
        keys = sorted({*theirs, *self._about})
        changed = [key for key in keys if theirs.get(key) != self._about.get(key)]
        if changed and fresh:
            self._empty()
            return None
        if changed:
            raise UserError(
                f"{self.folder} holds an unfinished restoration to {output} that differs in "
                f"{', '.join(changed)}. Give the same command to go on, delete the folder or pass "
                "--overwrite to start over, or choose another output."
            )
        return content["plan"]

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Lets others at it. A folder without any segment is removed."""
        if self._handle is not None:
            if not any(self.folder.glob(_SEGMENTS)):
                shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._handle)
            self._handle = None

    @property
    def plan(self) -> Plan | None:
        """How the clip is cut, if it was begun: the finished segments go by it."""
        if self._plan is None:
            return None
        fields: dict[str, Any] = dict(self._plan)
        fields |= {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return Plan(**fields)

    def begin(self, plan: Plan) -> None:
        """Writes down how the clip is cut; segments that are finished must go by it too."""
        self._plan = dataclasses.asdict(plan)
        content = {"version": _VERSION, "about": self._about, "plan": self._plan}
        files.write_text(self.folder / _FILE, json.dumps(content, indent=1) + "\n")

    def write(self, start: int, stop: int, frames: np.ndarray) -> None:
        """Stores the frames start to stop - 1, [t, h, w, 3], uint8 or uint16; whole or not."""
        _, h, w, _ = frames.shape
        path = self.folder / f"{start:08d}-{stop:08d}.mkv"
        size = {"height": h, "width": w, "bits": 8 * frames.itemsize}
        with open_writer(path, fps=1, codec="ffv1", overwrite=True, **size) as writer:
            for frame in frames:
                writer.write(frame)
        self.done.append((start, stop))

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yields the frames of a finished segment."""
        yield from open_frames(self.folder / f"{start:08d}-{stop:08d}.mkv")

    def finish(self) -> None:
        """Removes the journal: its output is complete."""
        (self.folder / _FINISHED).touch()  # should this process be killed while it removes the rest
        shutil.rmtree(self.folder)
        self.done = []

    def _empty(self) -> None:
        for path in self.folder.iterdir():
            files.remove(path)

    def _finished(self) -> Iterator[tuple[int, int]]:
        """Yields the finished segments from the first frame on, as far as none is missing."""
        expected = 0
        for path in sorted(self.folder.glob(_SEGMENTS)):
            start, stop = map(int, path.stem.split("-"))
            if start != expected:
                return
            yield start, stop
            expected = stop


def describe_files(paths: Iterable[str | os.PathLike]) -> list[list[Any]]:
    """Returns name, size and a hash of samples of the content of each file."""
    return [[Path(path).name, *_fingerprint(path)] for path in paths]


def describe_params(params: Params) -> str:
    """Returns a hash of all parameters."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(str(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _fingerprint(path: str | os.PathLike) -> tuple[int, str]:
    size = os.path.getsize(path)
    digest = hashlib.blake2b(digest_size=16)
    step = max(_SAMPLE_BYTES, size // _SAMPLES)
    with open(path, "rb") as file:
        for at in range(0, size, step):
            file.seek(at)
            digest.update(file.read(_SAMPLE_BYTES))
    return size, digest.hexdigest()
