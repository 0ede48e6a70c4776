"""Writing video files through PyAV, with everything but the picture taken over from the source."""

import logging
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from av.video.stream import VideoStream

from rvrt_jax.errors import UserError
from rvrt_jax.media.frame_source import FrameSource, check_frame
from rvrt_jax.media.other_streams import Companions
from rvrt_jax.media.video_reader import (
    ACCURATE,
    MATRICES,
    PIXEL_FORMATS,
    RGB,
    Colour,
    VideoReader,
    assumed_matrix,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Codec:
    """What an encoder can do. formats: pixel format by bits (8, 16), for even sizes; odd_formats:
    for an odd height or width, where those differ. keeps_shape: writes the pixels' shape itself, so
    that it survives in containers where PyAV cannot set it (all but MP4 and MOV). min_width: below
    it the encoder is not safe.
    """

    suffixes: tuple[str, ...]
    formats: dict[int, str]
    odd_formats: dict[int, str]
    options: dict[str, str]
    max_crf: int | None
    keeps_shape: bool
    min_width: int = 1


# 4:2:0 halves height and width, and x264 and x265 refuse odd ones: those become 4:4:4.
_YUV420 = {8: "yuv420p", 16: "yuv420p10le"}
_YUV444 = {8: "yuv444p", 16: "yuv444p10le"}
_RGB = {8: "bgr0", 16: "gbrp16le"}
_YUV422 = {8: "yuv422p10le", 16: "yuv422p10le"}
_X265_OPTIONS = {"preset": "medium", "x265-params": "log-level=error"}
_VP9_OPTIONS = {"b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}

CODECS = {
    "libx264": Codec(
        (".mp4", ".mkv", ".mov", ".avi"), _YUV420, _YUV444, {"preset": "medium"}, 51, True
    ),
    # Between 33 and 48 pixels of width x265 4.2 writes past its buffers and takes the process down.
    "libx265": Codec((".mp4", ".mkv", ".mov"), _YUV420, _YUV444, _X265_OPTIONS, 51, True, 64),
    "libvpx-vp9": Codec(
        (".webm", ".mkv", ".mp4"), {8: "yuv420p"}, {8: "yuv420p"}, _VP9_OPTIONS, 63, False
    ),
    "libsvtav1": Codec((".webm", ".mkv", ".mp4"), _YUV420, _YUV420, {"preset": "5"}, 63, False),
    "prores_ks": Codec((".mov", ".mkv"), _YUV422, _YUV422, {"profile": "hq"}, None, False),
    "ffv1": Codec((".mkv", ".avi"), _RGB, _RGB, {"level": "3", "slicecrc": "1"}, None, False),
}
OUTPUT_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


def choose_codec(path: Path, *, codec: str | None, bits: int, crf: int) -> str:
    """Returns the encoder for a file; None stands for H.264, and in WebM for VP9 (8 bits) or AV1.

    Raises UserError for a suffix, encoder, depth or crf that is unknown or does not fit the others.
    """
    suffix = path.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise UserError(
            f"{path}: cannot write {suffix} files. Use one of {' '.join(OUTPUT_SUFFIXES)}, or for "
            "a folder of PNG images a name without suffix (or with / at its end)."
        )
    if codec is None:
        codec = ("libvpx-vp9" if bits == 8 else "libsvtav1") if suffix == ".webm" else "libx264"
    if codec not in CODECS:
        raise UserError(f"codec {codec!r} is unknown. Use one of {', '.join(CODECS)}.")
    known = CODECS[codec]
    if suffix not in known.suffixes:
        raise UserError(f"{path}: {codec} video goes into {' '.join(known.suffixes)} files.")
    if bits not in known.formats:
        raise UserError(f"{codec} cannot write {bits}-bit frames. Use libsvtav1 or libx265.")
    if known.max_crf is not None and not 0 <= crf <= known.max_crf:
        raise UserError(f"crf is {crf}; {codec} takes 0 (best) to {known.max_crf}.")
    try:
        av.Codec(codec, "w")
    except av.error.FFmpegError as error:
        raise UserError(
            f"this build of FFmpeg has no encoder {codec}. Install the av wheel of PyPI, or use "
            f"one of {', '.join(CODECS)}."
        ) from error
    return codec


class VideoWriter:
    """Encodes frames, [height, width, 3] RGB, uint8 (bits = 8) or uint16 (bits = 16), into a file.

    Frames keep their exact size: an odd height or width makes H.264 and H.265 use 4:4:4, which some
    hardware players cannot show. bits = 16 is stored in 10 bits, by ffv1 in 16.

    With a source video: its time stamps (frame k of the output gets the time of its frame k),
    colour tags, pixel shape, audio, subtitles, attachments, chapters and tags are taken over. The
    source's frames come upright, so that the output carries no rotation tag. If fewer frames than
    the source has are written, audio and subtitles end with the last frame.
    dropped: what the container could not take; each is also logged as a warning.
    Without a source: constant rate fps, colours tagged as sRGB pictures are in video (BT.709
    primaries and transfer; the matrix by size).
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: Fraction,
        bits: int,
        codec: str,
        crf: int,
        source: FrameSource | None,
    ) -> None:
        video = source if isinstance(source, VideoReader) else None
        if video is not None and path.suffix.lower() == ".avi" and not video.is_constant:
            raise UserError(
                f"{video.path} has a variable frame rate, which AVI cannot hold. "
                "Write .mkv or .mp4."
            )
        if width < CODECS[codec].min_width:
            raise UserError(
                f"the frames are {width} pixels wide; {codec} writes {CODECS[codec].min_width} and "
                "more. Use libx264, or libsvtav1 for more than 8 bits."
            )
        self.count = 0
        self.dropped = ["transparency"] if source is not None and source.has_alpha else []
        self._shape, self._bits, self._source = (height, width, 3), bits, video
        self._clock = video.clock if video else 1 / fps
        self._companions: Companions | None = None
        self._open_files = ExitStack()
        try:
            self._output = self._open_files.enter_context(av.open(str(path), "w"))
            picture = self._add_picture(path.suffix.lower(), codec, crf, fps)
            self._stream, self._colour = picture
            if video:
                self._companions = self._open_files.enter_context(
                    Companions(video, self._output, self.dropped)
                )
            self._output.start_encoding()  # so that what cannot be written shows now
        except BaseException as error:
            self._abort()
            if isinstance(error, av.error.FFmpegError) and not isinstance(error, OSError):
                raise UserError(
                    f"{codec} cannot write {width}x{height} frames into a {path.suffix} file "
                    f"({error.strerror}). Use another codec, or .mkv."
                ) from error
            raise
        for what in self.dropped:
            _log.warning("%s does not keep %s.", path.suffix, what)

    def write(self, frame: np.ndarray) -> None:
        """Encodes the next frame; raises ValueError if it has another shape or dtype."""
        check_frame(frame, self.count, shape=self._shape, bits=self._bits)
        picture = VideoFrame.from_ndarray(frame, format=PIXEL_FORMATS[self._bits]).reformat(
            format=self._stream.pix_fmt,
            dst_colorspace=None if self._colour.matrix == RGB else MATRICES[self._colour.matrix],
            dst_color_range=self._colour.range,
            interpolation=ACCURATE,
        )
        timing = self._source.timing(self.count) if self._source else (self.count, 1)
        picture.pts, picture.duration = timing
        picture.time_base = self._clock
        self._mux(self._stream.encode(picture))
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Finishes the file; after an exception closes it, for the caller to remove."""
        if kind is None:
            self._finish()
        else:
            self._abort()

    def _finish(self) -> None:
        with self._open_files:
            self._mux(self._stream.encode(None))
            if self._companions and self._source:
                whole = self._source.decoded or self._source.length
                cut_short = self.count < whole or self._source.is_excerpt
                end = sum(self._source.timing(self.count - 1)) * self._clock if cut_short else None
                self._companions.copy_until(end)

    def _abort(self) -> None:
        with suppress(av.error.FFmpegError):  # the reason to abort is what matters
            self._open_files.close()

    def _add_picture(
        self, suffix: str, codec: str, crf: int, fps: Fraction
    ) -> tuple[VideoStream, Colour]:
        known = CODECS[codec]
        height, width, _ = self._shape
        options = dict(known.options)
        if known.max_crf is not None:
            options["crf"] = str(crf)
        if codec == "libx264" and suffix == ".avi":
            options["bf"] = "0"  # AVI cannot say in which order frames are shown
        if codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # only errors; it prints its settings otherwise
        stream = self._output.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        odd = height % 2 or width % 2
        stream.height, stream.width = height, width
        stream.pix_fmt = (known.odd_formats if odd else known.formats)[self._bits]
        context = stream.codec_context
        context.time_base = self._clock
        if codec == "libx264":
            # PyAV's default is a slice for each core, which costs bytes: 6% with 16 cores.
            context.thread_type = "FRAME"
        context.flags |= Flags.frame_duration  # else the last frame gets a mean duration
        if codec == "libx265" and suffix in (".mp4", ".mov"):
            context.codec_tag = "hvc1"  # Apple's players show no other
        shape = self._source.sample_aspect_ratio if self._source else Fraction(1)
        context.sample_aspect_ratio = shape
        if shape != 1 and not known.keeps_shape and suffix not in (".mp4", ".mov"):
            self.dropped.append(f"the pixel shape {shape.numerator}:{shape.denominator} ({codec})")
        colour = _output_colour(self._source, height, width, rgb=known.formats is _RGB)
        context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.trc
        return stream, colour

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            if self._stream.codec_context.name == "libx265" and self.count <= 2:
                packet.dts = packet.pts  # x265 leaves it undefined in clips this short
            if self._companions and packet.dts is not None:
                self._companions.copy_until(packet.dts * packet.time_base)
            self._output.mux(packet)


def _output_colour(source: VideoReader | None, height: int, width: int, *, rgb: bool) -> Colour:
    """Returns the tags to write: the source's; what they leave open is decided by the size."""
    given = source.colour if source else Colour(RGB, 0, ColorPrimaries.BT709, ColorTrc.BT709)
    if rgb:
        return Colour(RGB, ColorRange.JPEG, given.primaries, given.trc)
    matrix = given.matrix if given.matrix in MATRICES else assumed_matrix(height, width)
    full = given.matrix != RGB and given.range == ColorRange.JPEG
    range_ = ColorRange.JPEG if full else ColorRange.MPEG
    return Colour(matrix, range_, given.primaries, given.trc)
