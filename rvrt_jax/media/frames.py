"""One way to read and write clips: folders of images, patterns such as 'in/*.png', video files.

Frames are [h, w, 3] RGB, uint8 or uint16. Reading and writing go frame by frame; outputs appear
under their name only when they are complete.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.files import check_outputs, remove, replacing
from rvrt_jax.media import images
from rvrt_jax.media.colour import HDR_CURVES
from rvrt_jax.media.containers import holds_video, main_stream, open_container
from rvrt_jax.media.encoders import OUTPUT_SUFFIXES, choose_encoder
from rvrt_jax.media.frame_source import DTYPES, FrameSource
from rvrt_jax.media.image_folders import FolderWriter, ImageReader
from rvrt_jax.media.video_reader import VideoReader
from rvrt_jax.media.video_writer import VideoWriter
from rvrt_jax.media.y4m import Y4mReader, Y4mWriter

PICTURE_SUFFIX = ".png"
PIPE = "-"  # the name of the standard input and output
VIDEO_SUFFIXES = (
    *OUTPUT_SUFFIXES,
    *(".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".ogv", ".3gp", ".y4m"),
    *(".mxf", ".gif", ".vob", ".h264", ".hevc", ".divx", ".asf", ".m2v"),
)


class FrameWriter(Protocol):
    """Takes the frames of a clip in order."""

    @property
    def count(self) -> int:
        """Frames written so far."""
        ...

    @property
    def dropped(self) -> Sequence[str]:
        """What of the source the output cannot hold, in words."""
        ...

    def write(self, frame: np.ndarray) -> None:
        """Writes [height, width, 3] RGB, uint8 or uint16 as `open_writer` was told."""
        ...


def is_video(path: str | os.PathLike) -> bool:
    """Tells whether a path names a video file: by its suffix, or else by its content.

    It need not exist.
    """
    path = Path(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return not path.is_dir()
    return path.is_file() and not images.is_image(path) and holds_video(path)


def open_frames(
    path: str | os.PathLike,
    *,
    fps: Fraction | float | str | None = None,
    damaged: Literal["error", "skip"] = "error",
    deinterlace: bool = False,
) -> FrameSource:
    """Opens a folder of images, one image, a pattern of images, a video file, or "-", a pipe.

    fps: the rate of images, such as 25 or "24000/1001". A video has its own.
    damaged: what to do with a video that is cut short or broken: "skip" leaves out what cannot be
    decoded. Images must always be whole.
    deinterlace: makes whole pictures of the frames that a video calls interlaced.
    Raises UserError if there is nothing to read, a file is of the wrong kind or truncated, images
    differ in size or depth, or fps is given for a video. See `ImageReader` and `VideoReader`.
    """
    path = os.fspath(path)
    if path == PIPE:
        return Y4mReader(sys.stdin.buffer)
    rate = None if fps is None else parse_fps(fps)
    if not os.path.isfile(path) or images.is_image(Path(path)):
        if deinterlace:
            raise UserError(f"{path}: images are not interlaced. Leave deinterlace out.")
        return ImageReader(path, fps=rate)
    reader = VideoReader(Path(path), damaged=damaged, deinterlace=deinterlace)
    if rate is not None:
        raise UserError(
            f"{path} has its own frame rate ({reader.fps}); fps is for images. Leave it out."
        )
    return reader


@contextlib.contextmanager
def open_writer(
    path: str | os.PathLike,
    *,
    fps: Fraction | float | str | None,
    height: int,
    width: int,
    bits: int = 8,
    names: Sequence[str] | None = None,
    source: FrameSource | None = None,
    codec: str | None = None,
    crf: int = 15,
    pix_fmt: str | None = None,
    overwrite: bool = False,
    within: Path | None = None,
) -> Iterator[FrameWriter]:
    """Opens a video file or a .png (by its suffix), "-" for a pipe, or else a folder of PNG images.

    Use it in a `with`. A pipe gets YUV4MPEG2 (see `y4m`).

    Everything is written under a temporary name beside `path`, which it takes on leaving the `with`
    block; after an exception the temporary files are removed and `path` is as it was.
    fps: of a video; None if there is a source video, whose time stamps are kept.
    bits: 8 for uint8 frames, 16 for uint16 (PNG: 16 bits; video: 10 bits, with ffv1 16).
    names: frame k becomes the stem of names[k] + ".png". None: the source's, or 00000000.png on.
    source: where the frames come from; a source video hands on all it has beside the picture (see
    `VideoWriter`).
    codec: "h264", "hevc", "av1", "vp9", "prores" or "ffv1", which is lossless in .mkv; None: see
    `encoders.choose_encoder`. crf: quality of the lossy ones, less is better. pix_fmt: FFmpeg's
    name of the pixel format; None: one that keeps what the source has.
    overwrite: replaces an existing file, or a folder that holds PNG images and nothing else.
    within: a folder for the temporary files, as in `files.replacing`.
    Raises UserError for a target that exists, an unknown suffix, a video without fps, names that
    collide, and if no frame was written.
    """
    path = os.fspath(path)
    if bits not in DTYPES:
        raise ValueError(f"bits is {bits}; give 8 or 16.")
    target = Path(path)
    if source is not None and not source.length_known:
        fps = source.fps
    if path == PIPE:
        rate = _output_rate(path, fps if source is None else source.fps, None)
        yield Y4mWriter(sys.stdout.buffer, height=height, width=width, bits=bits, fps=rate)
        return
    if source is not None:
        check_outputs([path], inputs=source.files, overwrite=True)
    as_video = target.suffix != "" and not path.endswith(("/", os.sep)) and not target.is_dir()
    _check_target(target, as_video=as_video, overwrite=overwrite)
    frame = {"height": height, "width": width, "bits": bits}
    as_picture = as_video and target.suffix.lower() == PICTURE_SUFFIX
    with contextlib.ExitStack() as stack:
        if as_picture:
            if source is not None and source.length != 1:
                raise UserError(
                    f"{path} is one picture, but there are {source.length} frames. Give a folder "
                    "(a name without suffix, or with / at its end) or a video."
                )
            partial = stack.enter_context(replacing(target, within=within))
            folder = partial.with_name(f"{partial.name}.d")
            stack.callback(remove, folder)
            writer = FolderWriter(folder, names=[target.name], source=source, **frame)
        elif as_video:
            video = source if isinstance(source, VideoReader) else None
            encoder = choose_encoder(
                target, codec=codec, bits=bits, crf=crf, width=width, hdr=_is_hdr(video)
            )
            options = {"codec": encoder, "crf": crf, "pix_fmt": pix_fmt}
            rate = _output_rate(path, fps, video)
            partial = stack.enter_context(replacing(target, within=within))
            writer = VideoWriter(partial, fps=rate, source=source, **frame, **options)
        else:
            names = names or (source.names if source is not None else None)
            partial = stack.enter_context(replacing(target, folder=True, within=within))
            writer = FolderWriter(partial, names=names, source=source, **frame)
        stack.enter_context(writer)
        yield writer
        if writer.count == 0:
            raise UserError(f"{path}: there was no frame to write. Give a clip with frames.")
        if as_picture:
            (picture,) = folder.iterdir()
            picture.replace(partial)


def describe(path: str | os.PathLike) -> str:
    """Returns what a clip that was written holds, in words: "h264 640x384, audio aac"."""
    if not is_video(path):
        return "PNG images" if os.path.isdir(path) else "a PNG image"
    with open_container(Path(path)) as container:
        picture = main_stream(container, Path(path))
        parts = [f"{picture.codec_context.name} {picture.width}x{picture.height}"]
        for stream in container.streams:  # which may not be looked at once the file is closed
            if stream.index != picture.index:
                name = stream.codec_context.name if stream.codec_context else ""
                parts.append(f"{stream.type} {name}".strip())
    return ", ".join(parts)


def to_float(frames: np.ndarray) -> np.ndarray:
    """Returns uint8 or uint16 frames of any shape as float32, the largest number as 1."""
    if frames.dtype not in DTYPES.values():
        raise ValueError(f"frames are {frames.dtype}; give uint8 or uint16.")
    return frames.astype(np.float32) / np.float32(np.iinfo(frames.dtype).max)


def to_uint(frames: np.ndarray, bits: int) -> np.ndarray:
    """Returns float frames in [0, 1] as uint8 (bits = 8) or uint16 (16), clamped.

    Rounds to the nearest number, halves to even, so that it undoes `to_float` exactly.
    Raises UserError for values that are not finite.
    """
    if bits not in DTYPES:
        raise ValueError(f"bits is {bits}; give 8 or 16.")
    if not np.isfinite(frames).all():
        count = int(np.size(frames) - np.isfinite(frames).sum())
        raise UserError(
            f"{count} of {np.size(frames)} values are NaN or infinite and cannot become pixels. "
            "Check the weights and the input, or compute in float32."
        )
    dtype = DTYPES[bits]
    scaled = np.clip(frames, 0, 1) * np.float32(np.iinfo(dtype).max)
    return np.rint(scaled).astype(dtype)


def parse_fps(fps: Fraction | float | str) -> Fraction:
    """Returns 25, 29.97 or "30000/1001" as a fraction; raises UserError for what is no rate."""
    try:
        rate = Fraction(str(fps))
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"fps is {fps}; give a number such as 25 or 30000/1001.") from error
    if rate <= 0:
        raise UserError(f"fps is {fps}; it must be above 0.")
    return rate


def _is_hdr(video: VideoReader | None) -> bool:
    return video is not None and (video.hdr is not None or video.colour.trc in HDR_CURVES)


def _output_rate(
    path: str, fps: Fraction | float | str | None, video: VideoReader | None
) -> Fraction:
    rate = None if fps is None else parse_fps(fps)
    if video is not None:
        if rate not in (None, video.rate):
            raise ValueError(f"fps is {rate}, but the source plays at {video.rate}. Omit fps.")
        return video.rate
    if rate is None:
        raise UserError(f"{path}: images have no frame rate. Pass fps, such as 25 or 30000/1001.")
    return rate


def _check_target(target: Path, *, as_video: bool, overwrite: bool) -> None:
    """Raises UserError if something is in the way that may not be replaced."""
    if target.is_dir():
        inside = sorted(target.iterdir())
        foreign = [item.name for item in inside if item.suffix.lower() != ".png" or item.is_dir()]
        if foreign:
            raise UserError(
                f"{target} holds more than PNG images ({foreign[0]}) and is never replaced. "
                "Choose another folder."
            )
        if inside and not overwrite:
            raise UserError(
                f"{target} holds {len(inside)} images. Choose another folder, or overwrite it."
            )
    elif target.exists() and not (as_video and overwrite):
        way_out = ", or overwrite it" if as_video else ": it is a file, not a folder"
        raise UserError(f"{target} exists. Choose another name{way_out}.")
