"""Clips as folders of images: finding and checking the files, writing PNG images."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.media import images
from rvrt_jax.media.frame_source import FrameSource, check_frame, to_8_bit

_SHOWN = 3  # images in a message


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
        self.files = find_images(path)
        self.names = [file.name for file in self.files]
        self.length = len(self.files)
        infos = [images.probe(file) for file in self.files]
        self.has_alpha = any(info.alpha for info in infos)
        # What most images are, so that an error names the odd ones.
        (usual, _), *_ = Counter((x.height, x.width, x.bits) for x in infos).most_common()
        self.height, self.width, self.bits = usual
        self._check(infos)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for frame, _ in self._read())

    def alphas(self) -> Iterator[np.ndarray]:
        for frame, alpha in self._read():
            opaque = np.full(frame.shape[:2], np.iinfo(frame.dtype).max, frame.dtype)
            yield opaque if alpha is None else alpha

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for index, file in enumerate(self.files):
            frame, alpha = images.read_with_alpha(file)
            height, width, _ = frame.shape
            info = images.ImageInfo(height, width, frame.dtype.itemsize * 8)
            self._check([info], first=index)  # it may have changed since
            yield frame, alpha

    def _check(self, infos: Sequence[images.ImageInfo], *, first: int = 0) -> None:
        """Raises UserError if images, from number `first` on, are not like most."""
        files = self.files[first:]
        odd = [
            f"{file} is {info.width}x{info.height}"
            for file, info in zip(files, infos, strict=False)
            if (info.height, info.width) != (self.height, self.width)
        ]
        if odd:
            more = f" and {len(odd) - _SHOWN} others differ" if len(odd) > _SHOWN else ""
            raise UserError(
                f"{', '.join(odd[:_SHOWN])}{more}; the frames of a clip must have one size, which "
                f"is {self.width}x{self.height} in {self.path}. Put clips into folders of their "
                "own; pictures that belong to no clip are restored with rvrt restore --one_by_one."
            )
        for file, info in zip(files, infos, strict=False):
            if info.bits != self.bits:
                raise UserError(
                    f"{file} has {info.bits} bits, other images in {self.path} have {self.bits}; "
                    "the frames of a clip must have one depth. Convert one kind into the other."
                )


class FolderWriter:
    """Writes frames, [height, width, 3] RGB, uint8 or uint16, as PNG images into a new folder.

    names: frame k becomes the stem of names[k] + ".png"; None: 00000000.png on. Raises UserError
    for names that would collide. source: frame k gets the opacity of its frame k, if it has any,
    resized to the frame. count: frames written. dropped: nothing (see `VideoWriter`).
    """

    dropped: Sequence[str] = ()

    def __init__(
        self,
        folder: Path,
        *,
        height: int,
        width: int,
        bits: int,
        names: Sequence[str] | None,
        source: FrameSource | None,
    ) -> None:
        self.count = 0
        self._alphas = source.alphas() if source is not None and source.has_alpha else None
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
        (self._folder / name).write_bytes(images.encode_png(frame, self._alpha()))
        self.count += 1

    def _alpha(self) -> np.ndarray | None:
        """Returns the opacity of the next frame, [h, w]; None if the source has none."""
        if self._alphas is None:
            return None
        alpha, (height, width, _) = next(self._alphas), self._shape
        if alpha.itemsize * 8 != self._bits:
            alpha = to_8_bit(alpha) if self._bits == 8 else np.uint16(257) * alpha
        shrinks = height < alpha.shape[0]
        filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cv2.resize(alpha, (width, height), interpolation=filter_)


def find_images(path: str) -> list[Path]:
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
