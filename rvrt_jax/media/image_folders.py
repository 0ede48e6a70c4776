"""Clips as folders of images: finding and checking the files, writing PNG images."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.media import images
from rvrt_jax.media.frame_source import FrameSource, check_frame


class ImageReader(FrameSource):
    """The images that a folder, a pattern such as 'in/*.png' or an image's own name stands for.

    They go in natural order ("2.png" before "10.png"); other files in a folder, and hidden ones,
    are passed over.
    """

    def __init__(self, path: str, *, fps: Fraction | None = None) -> None:
        """Reads all headers, so that a bad file shows before work starts.

        Raises UserError if there is no image, or if images differ in size or depth or are
        truncated.
        """
        self.path, self.fps = Path(path), fps
        self.files = _find_images(path)
        self.names = [file.name for file in self.files]
        self.length = len(self.files)
        info = images.probe(self.files[0])
        self.height, self.width, self.bits = info.height, info.width, info.bits
        for file in self.files[1:]:
            self._check(file, images.probe(file))

    def __iter__(self) -> Iterator[np.ndarray]:
        for file in self.files:
            frame = images.read(file)
            height, width, _ = frame.shape
            # It may have changed since.
            self._check(file, images.ImageInfo(height, width, frame.dtype.itemsize * 8))
            yield frame

    def _check(self, file: Path, info: images.ImageInfo) -> None:
        first = self.files[0]
        if (info.height, info.width) != (self.height, self.width):
            raise UserError(
                f"{first} is {self.width}x{self.height}, {file} is {info.width}x{info.height}; "
                "the frames of a clip must have one size. Put clips into folders of their own."
            )
        if info.bits != self.bits:
            raise UserError(
                f"{first} has {self.bits} bits, {file} has {info.bits}; the frames of a clip must "
                "have one depth. Convert one kind into the other."
            )


class FolderWriter:
    """Writes frames, [height, width, 3] RGB, uint8 or uint16, as PNG images into a new folder.

    names: frame k becomes the stem of names[k] + ".png"; None: 00000000.png on. Raises UserError
    for names that would collide. count: frames written. dropped: nothing (see `VideoWriter`).
    """

    dropped: Sequence[str] = ()

    def __init__(
        self, folder: Path, *, height: int, width: int, bits: int, names: Sequence[str] | None
    ) -> None:
        self.count = 0
        self._folder, self._shape, self._bits = folder, (height, width, 3), bits
        self._names = None if names is None else _png_names(names)
        folder.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        """Does nothing: the folder takes its name when it is complete."""

    def write(self, frame: np.ndarray) -> None:
        """Writes the next frame; raises ValueError for another shape or dtype, or without name."""
        check_frame(frame, self.count, shape=self._shape, bits=self._bits)
        if self._names is None:
            name = f"{self.count:08d}.png"
        elif self.count < len(self._names):
            name = self._names[self.count]
        else:
            raise ValueError(f"frame {self.count} has no name; {len(self._names)} were given.")
        (self._folder / name).write_bytes(images.encode_png(frame))
        self.count += 1


def _find_images(path: str) -> list[Path]:
    """Returns the images that a folder, a pattern or an image's own name stands for, in order."""
    if os.path.isdir(path):
        inside = list(Path(path).iterdir())
        found = [file for file in inside if images.is_image(file) and file.is_file()]
        where, hint = f"{path} holds", _folder_hint(inside)
    elif os.path.isfile(path):
        return [Path(path)]
    elif glob.has_magic(path):
        matches = [Path(match) for match in glob.glob(path, recursive=True)]
        found = [file for file in matches if images.is_image(file) and file.is_file()]
        where, hint = f"{path} matches {len(matches)} files, but", ""
    else:
        raise UserError(f"{path} does not exist. Give a folder of images, a pattern or a video.")
    found = [file for file in found if not file.name.startswith(".")]
    if not found:
        suffixes = " ".join(images.IMAGE_SUFFIXES)
        raise UserError(f"{where} no image ({suffixes}).{hint}")
    return sorted(found, key=lambda file: natural_key(str(file)))


def _folder_hint(inside: list[Path]) -> str:
    others = sorted(item.name for item in inside if not item.name.startswith("."))
    return f" It holds {others[0]}: give a file or folder in it by name." if others else ""


def _png_names(names: Sequence[str]) -> list[str]:
    owners: dict[str, str] = {}
    for name in names:
        png = f"{Path(name).stem}.png"
        if png in owners:
            raise UserError(
                f"{owners[png]} and {name} would both become {png}. Rename one of them, or write a "
                "video file."
            )
        owners[png] = name
    return list(owners)


def natural_key(name: str) -> tuple:
    """Returns a key that sorts names with numbers by their value: "2.png" before "10.png"."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(p) if i % 2 else p.casefold() for i, p in enumerate(parts)), name
