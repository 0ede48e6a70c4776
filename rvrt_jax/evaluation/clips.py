"""Which clips an input path stands for, where each is read and written, and whether it can be."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rvrt_jax.errors import UserError
from rvrt_jax.files import check_free, check_outputs
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.frames import is_video, open_frames


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

    def open(self, path: str) -> FrameSource:
        """Opens a clip."""
        return open_frames(path, fps=self.fps, damaged=self.damaged)


def find_clips(source: str, output: str, *, gt: str | None, picture: str | None) -> list[ClipFiles]:
    """Returns the clips that an input path stands for.

    A folder with sub-folders and no files is one clip per sub-folder, written to the folder of that
    name below `output` and scored against the one below `gt`; anything else is one clip.
    """
    folder = Path(source)
    entries = sorted(p for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else []
    if not entries or not all(entry.is_dir() for entry in entries):
        return [
            ClipFiles(folder.stem if is_video(source) else folder.name, source, output, gt, picture)
        ]
    if is_video(output):
        raise UserError(
            f"{source} holds {len(entries)} clips, but --output {output} is one video file. "
            f"Give a folder."
        )
    clips = []
    for entry in entries:
        shown = Path(picture) if picture else None
        clips.append(
            ClipFiles(
                entry.name,
                str(entry),
                os.path.join(output, entry.name, ""),  # a folder, whatever its name
                os.path.join(gt, entry.name) if gt else None,
                str(shown.with_name(f"{shown.stem}_{entry.name}{shown.suffix}")) if shown else None,
            )
        )
    return clips


def check_paths(
    clips: Sequence[ClipFiles],
    reading: ReadOptions,
    *,
    inputs: Iterable[str] = (),
    outputs: Iterable[str] = (),
    overwrite: bool,
) -> None:
    """Raises UserError if an output is taken, or an input, of whichever clip.

    inputs, outputs: further files that are read and written, such as weights and scores. Of several
    clips one that cannot be read is passed over, and one whose output is taken.
    """
    read, written = list(inputs), [*outputs]
    for clip in clips:
        try:
            with reading.open(clip.input) as source:
                read += map(str, source.files)
            if clip.gt is not None:
                with open_frames(clip.gt) as truth:
                    read += map(str, truth.files)
        except (UserError, OSError):
            if len(clips) == 1:
                raise
            read.append(clip.input)
    results = [path for clip in clips for path in (clip.output, clip.picture) if path]
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
