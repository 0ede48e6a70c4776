"""Clips that need no preparation: folders of images and video files, read where they lie."""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rvrt_jax.data.clips import SourceClip
from rvrt_jax.data.inventory import Inventory
from rvrt_jax.errors import UserError
from rvrt_jax.media import images
from rvrt_jax.media.frame_source import to_8_bit
from rvrt_jax.media.frames import is_video, open_frames
from rvrt_jax.media.image_folders import natural_key
from rvrt_jax.media.video_reader import VideoReader


@dataclass(frozen=True, kw_only=True)
class ImagesClip(SourceClip):
    """A folder of images; 16-bit ones are rounded to 8."""

    folder: str
    files: tuple[str, ...]

    def read(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        paths = [Path(self.folder, file) for file in self.files[start:stop:step]]
        return np.stack([to_8_bit(images.read(path)) for path in paths])


@dataclass(frozen=True, kw_only=True)
class VideoClip(SourceClip):
    """A video file, decoded from the key frame before the frames asked for."""

    path: str

    def read(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        frames = _video(self.path).read_range(start, min(stop, self.frames))
        return np.stack([to_8_bit(frame) for frame in itertools.islice(frames, 0, None, step)])


@functools.cache
def _video(path: str) -> VideoReader:
    return VideoReader(Path(path))


def find(root: str | Path) -> list[SourceClip]:
    """Returns the clips of a folder: its sub-folders of images and its video files, by name.

    A folder that holds images itself, or a video file, is one clip. Headers of all images and the
    packets of all videos are read, if they are not known from before (`inventory`).
    Raises UserError that names every clip that is broken, if images differ in size or depth or a
    file is truncated, and if there is no clip.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root} does not exist. Give a folder of clips or a video file.")
    inside = (
        sorted(root.iterdir(), key=lambda path: natural_key(path.name)) if root.is_dir() else []
    )
    inside = [path for path in inside if not path.name.startswith(".")]
    found = [path for path in inside if path.is_dir() or is_video(path)]
    if root.is_file() or any(images.is_image(path) for path in inside):
        found = [root]
    clips, problems, inventory = [], [], Inventory(root)
    for path in found:
        try:
            clips.append(_open(path, inventory))
        except UserError as error:
            problems.append(str(error))
    inventory.save()
    if problems:
        raise UserError(f"{root}: {len(problems)} clips cannot be used:\n" + "\n".join(problems))
    if not clips:
        raise UserError(f"{root} holds no clips; put folders of images or video files there.")
    _check_names(clips, root)
    return clips


def _open(path: Path, inventory: Inventory) -> SourceClip:
    facts = inventory.get(path)
    if facts is None:
        with open_frames(path) as source:
            size = {"frames": source.length, "height": source.height, "width": source.width}
            facts = {**size, "files": source.names}
        inventory.add(path, facts)
    fixed: dict[str, Any] = {key: facts[key] for key in ("frames", "height", "width")}
    fixed["weight"] = facts["frames"]
    if facts["files"] is None:
        return VideoClip(name=path.stem, path=str(path), **fixed)
    # A file that stands for itself has its own folder.
    folder = path if path.is_dir() else path.parent
    return ImagesClip(name=path.name, folder=str(folder), files=tuple(facts["files"]), **fixed)


def _check_names(clips: list[SourceClip], root: Path) -> None:
    names = [clip.name for clip in clips]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{root} holds more than one clip called {twice}. Rename all but one.")
