"""Records of version 1.0, which hold whole image files, written again with frames in tiles."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from rvrt_jax.data import records
from rvrt_jax.data.prepare import tfds_builder
from rvrt_jax.data.prepare.download_tree import File
from rvrt_jax.data.prepare.layout import ClipFiles
from rvrt_jax.data.published import CLEAN, DATASETS
from rvrt_jax.errors import UserError


class Records:
    """The frames of prepared records by made-up paths, read as `download_tree.Tree` reads files."""

    def __init__(self, folder: Path) -> None:
        self.source = folder
        self.files: dict[str, File] = {}
        self.splits: dict[str, list[ClipFiles]] = {}
        self._places: dict[str, tuple[str, int, str]] = {}
        info: Any = tfds.builder_from_directory(str(folder)).info
        streams = [stream for stream in ("gt", "lq") if stream in info.features]
        for split, clips in info.metadata["clips"].items():
            about = info.splits[split]
            size = about.num_bytes // max(1, about.num_examples * len(streams))  # of each file
            first, self.splits[split] = 0, []
            for name, frames, _, _ in clips:
                paths = {
                    stream: [self._add(split, first + k, stream, size) for k in range(frames)]
                    for stream in streams
                }
                gt, lq = (tuple(paths.get(stream, ())) for stream in ("gt", "lq"))
                self.splits[split].append(ClipFiles(name, gt, lq))
                first += frames

    def _add(self, split: str, number: int, stream: str, size: int) -> str:
        frame = records.example(self.source, split, number)["frame"].decode()
        path = f"{self.source}/{split}/{number}/{stream}/{frame}"
        self.files[path] = File(size, None)
        self._places[path] = split, number, stream
        return path

    def read(self, path: str) -> bytes:
        """Returns the image file that a record holds."""
        split, number, stream = self._places[path]
        return records.example(self.source, split, number)[stream]


def convert(folder: Path) -> Path:
    """Writes records of version 1.0 with frames in tiles beside them; returns the new folder.

    folder: DATA/NAME/KIND/1.0.0. Raises UserError if it is not such a folder, or not whole.
    """
    folder = folder.absolute()
    name, kind = folder.parts[-3:-1] if len(folder.parts) > 3 else ("", "")
    if name not in DATASETS or not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder} is no prepared set; give its folder, as data/reds/clean/1.0.0.")
    if folder.name != "1.0.0":
        raise UserError(f"{folder} is of version {folder.name}; those of 1.0.0 can be converted.")
    old = Records(folder)
    return tfds_builder.build(
        name, old, old.splits, folder.parents[2], kind=None if kind == CLEAN else kind
    )
