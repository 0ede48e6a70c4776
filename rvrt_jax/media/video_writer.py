"""Writing video files through PyAV, with everything but the picture taken over from the source."""

import logging
import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from rvrt_jax.errors import UserError
from rvrt_jax.media.colour import (
    ACCURATE,
    MATRICES,
    PIXEL_FORMATS,
    RGB,
    SRGB,
    UNSPECIFIED,
    output_colour,
)
from rvrt_jax.media.encoders import ENCODERS, choose_format
from rvrt_jax.media.frame_source import FrameSource, check_frame
from rvrt_jax.media.other_streams import Companions
from rvrt_jax.media.video_reader import VideoReader

_log = logging.getLogger(__name__)


class VideoWriter:
    """Encodes frames, [height, width, 3] RGB, uint8 (bits = 8) or uint16 (bits = 16), into a file.

    Frames keep their exact size: an odd height or width makes H.264 and H.265 use 4:4:4, which some
    hardware players cannot show. The pixel format is one that keeps the depth, the colour
    resolution and RGB of a source video, if the encoder has one (`encoders.choose_format`); of
    images 4:2:0. bits = 16 is stored in 10 bits or as many as the source has, by ffv1 in 16.

    With a source video: its time stamps (frame k of the output gets the time of its frame k),
    colour tags, HDR10 metadata, pixel shape, audio, subtitles, attachments, chapters and tags are
    taken over. The source's frames come upright, so that the output carries no rotation tag. If
    fewer frames than the source has are written, audio and subtitles end with the last frame.
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
        pix_fmt: str | None,
        source: FrameSource | None,
    ) -> None:
        video = source if isinstance(source, VideoReader) else None
        if video is not None and path.suffix.lower() == ".avi" and not video.is_constant:
            raise UserError(
                f"{video.path} has a variable frame rate, which AVI cannot hold. "
                "Write .mkv or .mp4."
            )
        rows, columns = ENCODERS[codec].smallest
        if height < rows or width < columns:
            raise UserError(
                f"the frames are {width}x{height}; {codec} is safe from {columns}x{rows} on. "
                "Use h264 (not in .webm) or ffv1 (in .mkv)."
            )
        self.count = 0
        self.dropped = ["transparency"] if source is not None and source.has_alpha else []
        if video is not None and video.has_captions:
            self.dropped.append("closed captions")
        self._shape, self._bits, self._source = (height, width, 3), bits, video
        self._clock = video.clock if video else 1 / fps
        self._companions: Companions | None = None
        self._open_files = ExitStack()
        try:
            self._output = self._open_files.enter_context(av.open(str(path), "w"))
            self._stream = self._add_picture(path.suffix.lower(), codec, crf, fps, pix_fmt)
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
        pixels = np.ascontiguousarray(frame)  # which is not copied once more
        picture = VideoFrame.from_numpy_buffer(pixels, format=PIXEL_FORMATS[self._bits]).reformat(
            format=self._stream.pix_fmt,
            dst_colorspace=None if self._colour.matrix == RGB else MATRICES[self._colour.matrix],
            dst_color_range=self._colour.range,
            interpolation=ACCURATE,
        )
        # ProRes takes these from the frames.
        picture.color_primaries, picture.color_trc = self._colour.primaries, self._colour.trc
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
                cut_short = self.count < whole or self._source.ends_early
                end = sum(self._source.timing(self.count - 1)) * self._clock if cut_short else None
                self._companions.copy_until(end)

    def _abort(self) -> None:
        with suppress(av.error.FFmpegError):  # the reason to abort is what matters
            self._open_files.close()

    def _add_picture(
        self, suffix: str, codec: str, crf: int, fps: Fraction, pix_fmt: str | None
    ) -> VideoStream:
        known, source = ENCODERS[codec], self._source
        height, width, _ = self._shape
        if codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # only errors; it prints its settings otherwise
        stream = self._output.add_stream(codec, rate=fps, options=self._options(suffix, codec, crf))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = height, width
        stream.pix_fmt, lost = choose_format(
            codec,
            size=(height, width),
            bits=self._bits,
            source=source.pixel_format if source else None,
            wanted=pix_fmt,
        )
        self.dropped += lost
        context = stream.codec_context
        context.time_base = self._clock
        if codec == "libx264":
            # PyAV's default is a slice for each core, which costs bytes: 6% with 16 cores.
            context.thread_type = "FRAME"
        context.flags |= Flags.frame_duration  # else the last frame gets a mean duration
        if codec == "libx265" and suffix in (".mp4", ".mov"):
            context.codec_tag = "hvc1"  # Apple's players show no other
        shape = source.sample_aspect_ratio if source else Fraction(1)
        context.sample_aspect_ratio = shape
        if shape != 1 and not known.keeps_shape and suffix not in (".mp4", ".mov"):
            self.dropped.append(f"the pixel shape {shape.numerator}:{shape.denominator} ({codec})")
        rgb, given = stream.format.is_rgb, source.colour if source else SRGB
        full = known.full_range and given.matrix != RGB and given.range == ColorRange.JPEG
        self._colour = colour = output_colour(given, height, width, rgb=rgb, full=full or rgb)
        if codec == "ffv1" and suffix == ".avi" and source and given.trc != UNSPECIFIED:
            self.dropped.append("colour tags (ffv1 in .avi)")
        context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.trc
        return stream

    def _options(self, suffix: str, codec: str, crf: int) -> dict[str, str]:
        """Returns the options of the encoder; notes what it cannot take of HDR metadata."""
        known = ENCODERS[codec]
        options = dict(known.options)
        if known.max_crf is not None:
            options["crf"] = str(crf)
        if codec == "libx264" and suffix == ".avi":
            options["bf"] = "0"  # AVI cannot say in which order frames are shown
        hdr = self._source.hdr if self._source else None
        if hdr is not None:
            self.dropped += hdr.dynamic
            if hdr.static and known.hdr is None:
                self.dropped.append(f"HDR10 metadata ({codec})")
            elif hdr.static and known.hdr is not None:
                name, value = hdr.encoder_options(known.hdr)
                options[name] = ":".join(filter(None, [options.get(name), value]))
        return options

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            if self._stream.codec_context.name == "libx265" and self.count <= 2:
                packet.dts = packet.pts  # x265 leaves it undefined in clips this short
            if self._companions and packet.dts is not None:
                self._companions.copy_until(packet.dts * packet.time_base)
            self._output.mux(packet)
