"""Clips of the published sets, as prepared by rvrt_jax.data.prepare: ranges of TFDS records."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rvrt_jax.data import images, published
from rvrt_jax.data.clips import Clip, to_8_bit
from rvrt_jax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RecordClip(Clip):
    """Records first to first + frames - 1 of a split; stream is "gt" or "lq"."""

    folder: str
    split: str
    stream: str
    first: int

    def read(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        records = _records(self.folder, self.split)
        frames = []
        for k in range(start, min(stop, self.frames), step):
            record = records[self.first + k]
            where = f"{self.folder}, {self.split}, clip {self.name}, {record['frame'].decode()}"
            frames.append(to_8_bit(images.decode(Path(where), record[self.stream])))
        return np.stack(frames)


def load(root: str | Path, name: str, split: str, *, lq: bool) -> list[tuple[Clip, Clip | None]]:
    """Returns the (gt, lq) clips of a split of a published set prepared below `root`.

    lq: whether the degraded frames of the set are wanted; else they are None.
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


def find(root: str | Path, name: str, *, lq: bool) -> Path:
    """Returns the folder of a prepared set, one that holds LQ frames if `lq`.

    Raises UserError if there is none, or if several kinds of LQ frames are there to choose from.
    """
    folders = sorted(path.parent for path in Path(root, name).glob("*/*/dataset_info.json"))
    degraded = [folder for folder in folders if folder.parent.name != "clean"]
    if not folders:
        raise UserError(published.instructions(name, str(root)))
    if not lq:
        return next((folder for folder in folders if folder not in degraded), folders[0])
    if not degraded:
        kinds = " or ".join(published.DATASETS[name].lq) or "none"
        raise UserError(
            f"{folders[0]} holds no degraded frames. Prepare the set with them (--lq: {kinds}), or "
            "set data.degradation to make them during training."
        )
    if len(degraded) > 1:
        raise UserError(
            f"{', '.join(map(str, degraded))} all hold degraded frames. Move all but one away."
        )
    return degraded[0]


@functools.cache
def _records(folder: str, split: str) -> Any:
    """Opens a split; once in each process."""
    builder: Any = tfds.builder_from_directory(folder)
    skip = tfds.decode.SkipDecoding()
    streams = [stream for stream in ("gt", "lq") if stream in builder.info.features]
    return builder.as_data_source(split=split, decoders={stream: skip for stream in streams})
