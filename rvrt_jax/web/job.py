"""What the page does with one upload; knows nothing of the page."""

import contextlib
import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.files import cache_dir
from rvrt_jax.media.excerpt import excerpt
from rvrt_jax.media.frame_source import FrameSource, to_8_bit
from rvrt_jax.media.frames import is_video, open_frames
from rvrt_jax.media.images import is_image
from rvrt_jax.restoration.clip import OutputOptions, Stages, put_on_device, restore_clip
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import catalogue
from rvrt_jax.weights.load import load_described

MODELS_KEPT = 2  # networks that stay in memory


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one upload may take."""

    megabytes: int = 500  # of a file
    frames: int = 300  # that are restored at once
    pixels: int = 1280 * 720  # of a frame of the input
    kept_seconds: int = 3600  # how long files stay


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asks for."""

    files: Sequence[str]  # one video, or images
    model: str  # a name of `model_names`
    sigma: float | None = None  # noise level, 0 to 255, for models that take one
    start: float = 0.0  # seconds of a video, or the number of an image
    frames: int = 100  # at most so many from there on
    scale: str | None = None  # output size over input size, None for the model's own


@dataclasses.dataclass(frozen=True)
class Result:
    """Files in the folder of the job."""

    output: Path  # a video, an image, or a zip of images
    before: Path  # one frame of the input, enlarged to the size of the output
    after: Path  # the same frame, restored
    frames: int  # restored ...
    of: int  # ... of so many in the file


def model_names() -> list[str]:
    """Returns the weights that are packaged or were fetched, the packaged ones first."""
    packaged = catalogue.packaged()
    fetched = [
        name
        for name, weight in catalogue.WEIGHTS.items()
        if (cache_dir() / weight.target).is_file()
    ]
    return [name for name in [*packaged, *fetched] if name in catalogue.MODELS]


@functools.lru_cache(maxsize=MODELS_KEPT)
def _stages(name: str) -> Stages:
    loaded = load_described(name)
    return Stages(put_on_device(loaded.model, loaded.params))


def takes_noise_level(name: str) -> bool:
    """Returns whether a model needs the noise level."""
    return _stages(name).first[0].takes_noise_level


def run(
    request: Request, folder: Path, limits: Limits, progress: Callable[[int, int], object]
) -> Result:
    """Restores an upload into `folder`, which must be empty.

    progress: called with the frames restored so far and in all. Raises UserError for files that are
    neither one video nor images, or damaged, and for more than the limits, with a way out.
    """
    if request.model not in model_names():
        raise UserError(f"there is no model {request.model!r}; choose from {model_names()}.")
    path = _gathered(request.files, folder)
    stages = _stages(request.model)
    noisy = stages.first[0].takes_noise_level
    settings = RestoreSettings(tile="auto", sigma=request.sigma if noisy else None)
    with open_frames(path) as whole:
        source = _part(whole, request, limits)
        video = is_video(path)
        target = folder / (f"{path.stem}_restored.mp4" if video else "restored")
        watcher = _Watcher(source.length, progress)
        options = OutputOptions(journal=False, scene_cuts="auto", scale=request.scale)
        outcome = restore_clip(
            stages, source, str(target), settings, options, name=path.name, watcher=watcher
        )
    before, after = folder / "before.png", folder / "after.png"
    original, restored = watcher.pair()
    height, width = restored.shape[:2]
    original = cv2.resize(original, (width, height), interpolation=cv2.INTER_CUBIC)
    for file, image in ((before, original), (after, restored)):
        cv2.imwrite(str(file), image[..., ::-1])
    output = target if video else _one_file(target)
    return Result(output, before, after, outcome.frames, whole.length)


def _gathered(files: Sequence[str], folder: Path) -> Path:
    """Returns the one video, or a folder with links to the images in order of their names."""
    if not files:
        raise UserError("there is no file yet. Drop a video or images first.")
    for file in map(Path, files):
        if not file.is_file():
            raise UserError(f"{file.name} waited too long and was removed. Drop it once more.")
        if not (is_video(file) or is_image(file)):
            raise UserError(f"{file.name} is neither a video nor an image that is read here.")
    videos = [file for file in files if is_video(file)]
    if videos and len(files) > 1:
        raise UserError(f"{len(files)} files with a video among them. Drop one video, or images.")
    if videos:
        return Path(videos[0])
    images = folder / "images"
    images.mkdir()
    for index, file in enumerate(sorted(files, key=os.path.basename)):
        (images / f"{index:05}_{os.path.basename(file)}").symlink_to(os.path.abspath(file))
    return images


def _part(whole: FrameSource, request: Request, limits: Limits) -> FrameSource:
    """Returns the frames that were asked for; raises UserError if they are too many or large."""
    if whole.height * whole.width > limits.pixels:
        raise UserError(
            f"the frames are {whole.width}x{whole.height}; this page takes up to "
            f"{limits.pixels:,} pixels. Use the command line, which has no limit."
        )
    if not 1 <= request.frames <= limits.frames:
        raise UserError(
            f"{request.frames} frames are asked for; this page restores 1 to {limits.frames} at "
            "once. Choose a shorter part, or use the command line, which has no limit."
        )
    start = f"{request.start:g}" if whole.names is None else f"{int(request.start)}f"
    return excerpt(whole, None if request.start == 0 else start, request.frames)


def _one_file(folder: Path) -> Path:
    """Returns the only image of a folder, or a zip of all."""
    images = sorted(folder.iterdir())
    if len(images) == 1:
        return images[0]
    return Path(shutil.make_archive(str(folder), "zip", folder))


class _Watcher:
    """Counts frames, and keeps the one in the middle."""

    def __init__(self, length: int, progress: Callable[[int, int], object]) -> None:
        self._length, self._progress = length, progress
        self._count = 0
        self._pair: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, original: np.ndarray, restored: np.ndarray) -> None:
        """Takes the next frame, as it was read and restored."""
        if self._count <= self._length // 2:
            self._pair = original, restored
        self._count += 1
        self._progress(self._count, max(self._length, self._count))

    def end(self) -> None:
        """Called after the last frame."""

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kept frame as it was read and restored, in 8 bits."""
        assert self._pair is not None  # restore_clip raises if there is no frame
        first, second = (to_8_bit(frame) for frame in self._pair)
        return first, second


class Files:
    """The files of all jobs below one folder, which `clean` removes when they are old."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._used: frozenset[Path] = frozenset()

    @contextlib.contextmanager
    def in_use(self, *paths: str | os.PathLike) -> Iterator[None]:
        """Keeps files, and all that is in folders; their age counts from the end."""
        used = frozenset(Path(path).absolute() for path in paths)
        self._used = self._used | used  # not in place: `clean` may be looking
        try:
            yield
        finally:
            for path in used:
                for file in (path, *path.rglob("*")):
                    with contextlib.suppress(FileNotFoundError):  # a damaged upload's link
                        os.utime(file, follow_symlinks=False)
            self._used = self._used - used

    def clean(self, *, older_than: float) -> None:
        """Removes files that are older than so many seconds, and empty folders."""
        limit = time.time() - older_than
        for folder, _, files in os.walk(self.root, topdown=False):
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # another request removed it
                    if path.lstat().st_mtime < limit and not self._is_used(path):
                        path.unlink()
            if folder != str(self.root):
                with contextlib.suppress(OSError):  # gone, or not empty
                    if os.stat(folder).st_mtime < limit and not self._is_used(Path(folder)):
                        os.rmdir(folder)

    def _is_used(self, path: Path) -> bool:
        path = path.absolute()
        return any(path.is_relative_to(used) for used in self._used)
