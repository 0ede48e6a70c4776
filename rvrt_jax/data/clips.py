"""Clips to read: what every kind has in common, and the kind that is mapped into memory."""

import abc
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rvrt_jax.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
BUNDLED = ASSETS / "clips"


class Frames(abc.ABC):
    """Some frames of a clip, of which parts are looked at. shape: (frames, height, width)."""

    shape: tuple[int, int, int]

    @abc.abstractmethod
    def crop(
        self,
        top: int,
        left: int,
        height: int,
        width: int,
        *,
        only: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Returns a part of all frames, or of `only` those, uint8 [t, height, width, 3].

        May be a view.
        """


class WholeFrames(Frames):
    """Frames that have been read whole, uint8 [t, h, w, 3]."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames
        t, h, w = frames.shape[:3]
        self.shape = (t, h, w)

    def crop(
        self,
        top: int,
        left: int,
        height: int,
        width: int,
        *,
        only: Sequence[int] | None = None,
    ) -> np.ndarray:
        frames = self._frames if only is None else self._frames[list(only)]
        return frames[:, top : top + height, left : left + width]


@dataclass(frozen=True, kw_only=True)
class SourceClip(abc.ABC):
    """A scene, or a photo (frames = 1), that is read on demand. Pickles small: no pixels.

    max_step: largest distance between frames used as neighbours. weight: how often it is drawn.
    """

    name: str
    frames: int
    height: int
    width: int
    max_step: int = 1
    weight: float = 1.0

    @abc.abstractmethod
    def read(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        """Returns frames start, start + step, ... before stop, uint8 [t, h, w, 3]; maybe a view."""

    def select(
        self, start: int, stop: int, step: int = 1, *, beside: Frames | None = None
    ) -> Frames:
        """Returns what `read` does, of which only parts need to be decoded.

        beside: the same frames of the clip that this one is stored with.
        """
        del beside
        return WholeFrames(self.read(start, stop, step))


@dataclass(frozen=True, kw_only=True)
class ArrayClip(SourceClip):
    """A clip in an .npy file, which is mapped once in each process and read where it is touched."""

    path: str

    def read(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        return _map(self.path)[start:stop:step]


@functools.cache
def _map(path: str) -> np.ndarray:
    array = np.load(path, mmap_mode="r")
    return array[None] if array.ndim == 3 else array


def load_prepared(root: str | Path) -> tuple[list[ArrayClip], list[ArrayClip]]:
    """Returns (video clips, photos) of a folder written by rvrt_jax.data.prepare.

    Raises UserError if the folder is missing, incomplete, or its files are not what it lists.
    """
    root = Path(root)
    manifest = root / "manifest.json"
    remedy = f"Run: python -m rvrt_jax.data.prepare real --output {root}"
    if not manifest.is_file():
        raise UserError(f"{root} holds no prepared training data (no manifest.json). {remedy}")
    clips, photos = [], []
    for entry in json.loads(manifest.read_text())["entries"]:
        path = root / entry["file"]
        if not path.is_file():
            raise UserError(f"{path} is missing, though {manifest} lists it. {remedy}")
        fields = {key: entry[key] for key in ("name", "frames", "height", "width", "max_step")}
        clip = ArrayClip(path=str(path), weight=entry["weight"], **fields)
        shape = _map(clip.path).shape
        if shape != (clip.frames, clip.height, clip.width, 3):
            raise UserError(f"{path} holds an array {shape}, not what {manifest} says. {remedy}")
        (clips if entry["kind"] == "clip" else photos).append(clip)
    return clips, photos


def load_folders(root: str | Path) -> dict[str, np.ndarray]:
    """Returns {name: uint8 [t, h, w, 3]} of a folder of folders of PNGs, in order of name.

    Raises UserError if there are none, or if one cannot be read or differs in size.
    """
    clips = {}
    for folder in sorted(path for path in Path(root).glob("*") if path.is_dir()):
        files = sorted(folder.glob("*.png"))
        if files:
            clips[folder.name] = _read_folder(files)
    if not clips:
        raise UserError(f"{root} holds no clips; expected folders of PNG frames.")
    return clips


def _read_folder(files: list[Path]) -> np.ndarray:
    frames = []
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{file} cannot be read as an image.")
        if frames and image.shape != frames[0].shape:
            raise UserError(f"{file} is {image.shape[:2]}, the first frame {frames[0].shape[:2]}.")
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return np.stack(frames)
