"""Clips of the published sets, as prepared by rvrt_jax.data.prepare: ranges of TFDS records.

Records of version 1.1 hold frames in tiles; those of version 1.0 hold image files, and are read
whole.
"""

import errno
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rvrt_jax.data import published, tiles
from rvrt_jax.data.clips import Frames, SourceClip
from rvrt_jax.errors import UserError
from rvrt_jax.media import images
from rvrt_jax.media.frame_source import FrameSource, to_8_bit


@dataclass(frozen=True, kw_only=True)
class RecordClip(SourceClip):
    """Records first to first + frames - 1 of a split; stream is "gt" or "lq"."""

    folder: str
    split: str
    stream: str
    first: int

    def __str__(self) -> str:
        return f"{self.folder}, {self.split}, clip {self.name}, {self.stream}"

    def read(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        return self.select(start, stop, step).crop(0, 0, self.height, self.width)

    def select(
        self, start: int, stop: int, step: int = 1, *, beside: Frames | None = None
    ) -> "SelectedFrames":
        if isinstance(beside, SelectedFrames):
            return SelectedFrames(self, beside.examples)
        times = range(start, min(stop, self.frames), step)
        numbers = [self.first + k for k in times]
        return SelectedFrames(self, _examples(self.folder, self.split, numbers))


class SelectedFrames(Frames):
    """Frames of a prepared clip, of which those in tiles are decoded where they are looked at."""

    def __init__(self, clip: RecordClip, examples: list[dict[str, Any]]) -> None:
        """examples: records with both streams, so that the other one's need not be read again."""
        self.clip, self.examples = clip, examples
        self.shape = len(examples), clip.height, clip.width
        self._whole: dict[int, np.ndarray] = {}  # decoded frames that are not in tiles

    def crop(
        self,
        top: int,
        left: int,
        height: int,
        width: int,
        *,
        only: Sequence[int] | None = None,
    ) -> np.ndarray:
        numbers = range(len(self.examples)) if only is None else only
        return np.stack([self._part(k, top, left, height, width) for k in numbers])

    def _part(self, k: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        example = self.examples[k]
        content = example[self.clip.stream]
        where = f"{self.clip}, {example['frame'].decode()}"
        if tiles.is_tiled(content):
            return to_8_bit(tiles.crop(content, top, left, height, width, where=where))
        if k not in self._whole:
            self._whole[k] = to_8_bit(images.decode(Path(where), content))
        return self._whole[k][top : top + height, left : left + width]


class RecordFrames(FrameSource):
    """The frames of a prepared clip one by one, as `open_frames` gives those of files."""

    def __init__(self, clip: RecordClip):
        self.clip = clip
        self.path = Path(clip.folder)
        self.files = sorted(self.path.iterdir())
        self.length, self.height, self.width = clip.frames, clip.height, clip.width
        self.fps, self.bits, self.names = None, 8, None

    def __iter__(self) -> Iterator[np.ndarray]:
        for k in range(self.length):
            yield self.clip.read(k, k + 1)[0]


def load(
    root: str | Path, name: str, split: str, *, lq: bool | str
) -> list[tuple[RecordClip, RecordClip | None]]:
    """Returns the (gt, lq) clips of a split of a published set prepared below `root`.

    lq: the kind of degraded frames that is wanted, or True for whichever is there; False: none,
    which are returned as None.
    Raises UserError that says how to get and prepare the set if it is not there, or not whole.
    """
    folder = find(root, name, lq=lq)
    info: Any = tfds.builder_from_directory(str(folder)).info
    command = published.command(name, str(root))
    if split not in info.splits:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(info.splits)}.")
    table, scale = info.metadata["clips"][split], info.metadata["scale"]
    missing = [
        path.name
        for path in map(Path, info.splits[split].filenames)
        if not (folder / path).is_file()
    ]
    if missing or sum(frames for _, frames, _, _ in table) != info.splits[split].num_examples:
        raise UserError(f"{folder} is not whole ({missing[:3]}). Delete it and run: {command}")
    pairs, first = [], 0
    for clip, frames, height, width in table:
        fixed: dict[str, Any] = {
            "folder": str(folder), "split": split, "first": first, "name": clip, "frames": frames
        }  # fmt: skip
        gt = RecordClip(stream="gt", height=height, width=width, weight=frames, **fixed)
        small = None
        if lq:
            small = RecordClip(
                stream="lq", height=height // scale, width=width // scale, weight=frames, **fixed
            )
        pairs.append((gt, small))
        first += frames
    return pairs


def find(root: str | Path, name: str, *, lq: bool | str) -> Path:
    """Returns the folder of a prepared set, one that holds LQ frames if `lq`, as in `load`.

    Raises UserError if there is none, or if several kinds of LQ frames are there to choose from.
    """
    folders = kinds(root, name)
    if not folders:
        raise UserError(published.instructions(name, str(root)))
    if not lq:
        return folders.get(published.CLEAN) or next(iter(folders.values()))
    wanted = [kind for kind in folders if kind != published.CLEAN and lq in (True, kind)]
    if not wanted:
        known = [lq] if isinstance(lq, str) else published.DATASETS[name].lq
        raise UserError(
            f"{Path(root, name)} holds no degraded frames of that kind. Prepare the set with them "
            f"(--lq: {' or '.join(known) or 'none'}), or have them made of the sharp ones "
            "(data.degradation in training, --degrade of test sets)."
        )
    if len(wanted) > 1:
        raise UserError(
            f"{', '.join(str(folders[kind]) for kind in wanted)} all hold degraded frames. Move "
            "all but one away."
        )
    return folders[wanted[0]]


def example(folder: Path, split: str, number: int) -> dict[str, Any]:
    """Returns a record as it is stored: clip, frame and streams as bytes."""
    return _examples(str(folder), split, [number])[0]


def kinds(root: str | Path, name: str) -> dict[str, Path]:
    """Returns the folders of a set prepared below `root`, by the kind of their LQ frames."""
    files = sorted(Path(root, name).glob("*/*/dataset_info.json"))
    return {file.parents[1].name: file.parent for file in files}


def _examples(folder: str, split: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Reads records. Raises OSError that names the file, or at least the folder."""
    try:
        records = _records(folder, split)
        found = [records[number] for number in numbers]
        if not all(example["frame"] for example in found):  # what a file that was cut gives
            raise RuntimeError("")
        return found
    except RuntimeError as error:  # the only type that ArrayRecord has, also for its disk's errors
        _records.cache_clear()  # a file handle may be stale for good
        missing = os.strerror(errno.ENOENT) in str(error)
        kind = FileNotFoundError if missing else OSError
        what = str(error) or "a file is not whole"
        raise kind(f"{folder}, {split}: records cannot be read: {what}") from error


@functools.cache
def _records(folder: str, split: str) -> Any:
    """Opens a split; once in each process."""
    builder: Any = tfds.builder_from_directory(folder)
    skip = tfds.decode.SkipDecoding()
    streams = [stream for stream in ("gt", "lq") if stream in builder.info.features]
    return builder.as_data_source(split=split, decoders={stream: skip for stream in streams})
