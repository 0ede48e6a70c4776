"""Which clips an input path stands for, where each is read and written, and whether it can be."""

import dataclasses
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from rvrt_jax.errors import UserError
from rvrt_jax.files import check_free, check_outputs
from rvrt_jax.media.encoders import OUTPUT_SUFFIXES
from rvrt_jax.media.excerpt import excerpt
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.frames import PIPE, is_video, open_frames
from rvrt_jax.media.image_folders import find_images, natural_key
from rvrt_jax.media.images import is_image


@dataclasses.dataclass(frozen=True)
class ClipFiles:
    """Where one clip is read and written; `gt` and `picture` are None if not asked for."""

    name: str
    input: str
    output: str
    gt: str | None
    picture: str | None


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How clips are read."""

    # Frame rate of images that become a video, such as 25 or "24000/1001".
    fps: str | None = None
    # "skip" leaves out what cannot be decoded of a broken video.
    damaged: Literal["error", "skip"] = "error"
    # Where to begin, and how many frames to take at most (`media.excerpt`).
    start: str | None = None
    frames: int | None = None
    # Makes whole pictures of the frames that a video calls interlaced.
    deinterlace: bool = False

    def open(self, path: str) -> FrameSource:
        """Opens a clip."""
        source = open_frames(path, fps=self.fps, damaged=self.damaged, deinterlace=self.deinterlace)
        return excerpt(source, self.start, self.frames)

    def open_truth(self, path: str) -> FrameSource:
        """Opens the ground truth of a clip."""
        return excerpt(open_frames(path), self.start, self.frames)


def find_clips(
    sources: Sequence[str],
    output: str,
    *,
    gt: str | None = None,
    picture: str | None = None,
    one_by_one: bool = False,
) -> list[ClipFiles]:
    """Returns the clips that input paths stand for.

    A folder that holds no image, but folders or videos, is a clip for each of these; so are several
    paths, which patterns may stand for. They are written below `output` and scored against what has
    their name below `gt`. Anything else is one clip.
    one_by_one: each image is a clip of its own, which becomes a PNG image below `output`.
    """
    if one_by_one:
        images = [file for source in sources for file in find_images(source)]
        return [
            ClipFiles(
                file.name,
                str(file),
                os.path.join(output, f"{file.stem}.png"),
                os.path.join(gt, file.name) if gt else None,
                os.path.join(picture, f"{file.stem}.png") if picture else None,
            )
            for file in images
        ]
    several = [path for source in sources for path in _clips_in(source)]
    if len(sources) == 1 and several == list(sources):
        source = Path(sources[0])
        name = source.stem if is_video(source) else source.name
        return [ClipFiles(name, sources[0], output, gt, picture)]
    if is_video(output):
        raise UserError(
            f"{', '.join(sources)} holds {len(several)} clips, but --output {output} is one video "
            "file. Give a folder."
        )
    clips = []
    for path in map(Path, several):
        shown = Path(picture) if picture else None
        clips.append(
            ClipFiles(
                path.name,
                str(path),
                os.path.join(output, _output_name(path)),
                os.path.join(gt, path.name) if gt else None,
                str(shown.with_name(f"{shown.stem}_{path.name}{shown.suffix}")) if shown else None,
            )
        )
    return clips


def _clips_in(source: str) -> list[str]:
    """Returns the clips that one path stands for, in natural order."""
    folder = Path(source)
    if folder.is_dir():
        inside = [path for path in folder.iterdir() if path.name[0] != "."]
        clips = [str(path) for path in inside if path.is_dir() or is_video(path)]
        if clips and not any(is_image(path) for path in inside):
            return sorted(clips, key=natural_key)
    elif glob.has_magic(source) and not folder.exists():
        matches = glob.glob(source, recursive=True)
        if matches and not any(is_image(Path(path)) for path in matches):
            return sorted(matches, key=natural_key)
    return [source]


def _output_name(path: Path) -> str:
    """Returns the name of what a clip becomes: a folder, or a video in a format that is written."""
    if not is_video(path):
        return os.path.join(path.name, "")  # a folder, whatever its name
    return path.name if path.suffix.lower() in OUTPUT_SUFFIXES else f"{path.name}.mkv"


def _files_of(path: str) -> Iterator[str]:
    """Yields the files that are read of a clip, and maybe more."""
    if os.path.isdir(path):
        yield from map(str, Path(path).iterdir())
    elif os.path.lexists(path):
        yield path
    else:
        yield from glob.glob(path, recursive=True)


def check_paths(
    clips: Sequence[ClipFiles],
    *,
    inputs: Iterable[str] = (),
    outputs: Iterable[str] = (),
    overwrite: bool,
) -> None:
    """Raises UserError if an output is taken, or an input, of whichever clip.

    inputs, outputs: further files that are read and written, such as weights and scores. Of several
    clips one whose output is taken is passed over.
    """
    read, written = list(inputs), [*outputs]
    if any(PIPE in (clip.input, clip.output) and (clip.gt or clip.picture) for clip in clips):
        raise UserError("a pipe is neither scored nor pictured: give files.")
    for clip in clips:
        read += _files_of(clip.input)
        read += _files_of(clip.gt) if clip.gt is not None else ()
    results = [path for clip in clips for path in (clip.output, clip.picture) if path]
    results = [path for path in results if path != PIPE]
    check_outputs([*written, *results], inputs=read, overwrite=True)
    if not overwrite:
        for path in written if len(clips) > 1 else [*written, *results]:
            check_free(path)


def check_clip(clip: ClipFiles, source: FrameSource, truth: FrameSource | None, scale: int) -> None:
    """Raises UserError if a ground truth does not fit its clip."""
    if truth is not None:
        _check_truth(clip, source, truth, scale)


def _check_truth(clip: ClipFiles, source, truth, scale: int) -> None:
    if source.length != truth.length:
        raise UserError(
            f"{clip.gt} has {truth.length} frames, its input {clip.input} {source.length}. "
            f"The ground truth must have the same frames."
        )
    expected = (source.height * scale, source.width * scale)
    if (truth.height, truth.width) != expected:
        raise UserError(
            f"{clip.gt} is {truth.width}x{truth.height}, but {clip.input} of "
            f"{source.width}x{source.height} at scale {scale} becomes {expected[1]}x{expected[0]}. "
            f"Give the ground truth of this size."
        )
