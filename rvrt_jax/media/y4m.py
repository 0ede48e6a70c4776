"""YUV4MPEG2 on pipes, as `ffmpeg -f yuv4mpegpipe` and other programs write and read it.

A header of one line, and before the samples of each frame the word FRAME. The matrix and the range
are not in it: they are taken as for untagged video, limited range.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from rvrt_jax.errors import UserError
from rvrt_jax.media.colour import ACCURATE, MATRICES, PIXEL_FORMATS, assumed_matrix
from rvrt_jax.media.frame_source import FrameSource, check_frame

# The length of a pipe is not known: planning takes it for a long film.
ASSUMED_LENGTH = 10**6
_HEADER, _FRAME, _LONGEST_LINE = b"YUV4MPEG2 ", b"FRAME", 4096
_CHROMA = re.compile(r"(420|422|444)(?:jpeg|mpeg2|paldv)?(?:p(10|12|16))?|mono")


class Y4mReader(FrameSource):
    """The frames of a YUV4MPEG2 stream, which can be read once.

    They are uint8 for 8 bits, else uint16. Raises UserError for what is not such a stream, and for
    one that ends within a frame.
    """

    length_known = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.path, self.files, self.names = Path("-"), [], None
        line = stream.readline(_LONGEST_LINE)
        if not line.startswith(_HEADER) or not line.endswith(b"\n"):
            raise UserError(
                "the standard input is not YUV4MPEG2. Pipe into it from a program that writes it: "
                "ffmpeg -i in.mp4 -f yuv4mpegpipe -strict -1 -"
            )
        fields = {part[0]: part[1:] for part in line[len(_HEADER) :].decode("ascii").split()}
        try:
            self.width, self.height = int(fields["W"]), int(fields["H"])
            self.fps = Fraction(fields["F"].replace(":", "/"))
        except (KeyError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"the header {line!r} lacks a size or a rate.") from error
        if fields.get("I", "p") not in "p?":
            raise UserError("the stream is interlaced; deinterlace it first (ffmpeg -vf bwdif).")
        self.length = ASSUMED_LENGTH
        self._format = _pixel_format(fields.get("C", "420jpeg"))
        self.bits = 16 if self._format.components[0].bits > 8 else 8

    def __iter__(self) -> Iterator[np.ndarray]:
        index = 0
        while line := self._stream.readline(_LONGEST_LINE):
            if not line.startswith(_FRAME):
                raise UserError(f"frame {index} of the standard input does not begin with FRAME.")
            yield self._read(index)
            index += 1

    def _read(self, index: int) -> np.ndarray:
        frame = VideoFrame(self.width, self.height, self._format.name)
        for plane in frame.planes:
            row = plane.width * self.bits // 8
            data = self._stream.read(row * plane.height)
            if len(data) < row * plane.height:
                raise UserError(f"the standard input ends within frame {index}.")
            padded = np.zeros((plane.height, plane.line_size), np.uint8)
            padded[:, :row] = np.frombuffer(data, np.uint8).reshape(plane.height, row)
            plane.update(padded.tobytes())
        return frame.reformat(
            format=PIXEL_FORMATS[self.bits],
            src_colorspace=MATRICES[assumed_matrix(self.height, self.width)],
            src_color_range=ColorRange.MPEG,
            interpolation=ACCURATE,
        ).to_ndarray()


class Y4mWriter:
    """Writes frames, [height, width, 3] RGB, as YUV4MPEG2 in 4:4:4: 8 bits, or 10 for uint16."""

    def __init__(
        self, stream: BinaryIO, *, height: int, width: int, bits: int, fps: Fraction
    ) -> None:
        self.count = 0
        self.dropped = ["sound and all else beside the picture (y4m)"]
        self._stream, self._shape, self._bits = stream, (height, width, 3), bits
        self._format = "yuv444p" if bits == 8 else "yuv444p10le"
        rate = f"F{fps.numerator}:{fps.denominator}"
        chroma = "C444" if bits == 8 else "C444p10"
        stream.write(f"YUV4MPEG2 W{width} H{height} {rate} Ip A1:1 {chroma}\n".encode())

    def write(self, frame: np.ndarray) -> None:
        """Writes the next frame; raises ValueError for another shape or dtype."""
        check_frame(frame, self.count, shape=self._shape, bits=self._bits)
        height, width, _ = self._shape
        picture = VideoFrame.from_ndarray(frame, format=PIXEL_FORMATS[self._bits]).reformat(
            format=self._format,
            dst_colorspace=MATRICES[assumed_matrix(height, width)],
            dst_color_range=ColorRange.MPEG,
            interpolation=ACCURATE,
        )
        self._stream.write(_FRAME + b"\n")
        for plane in picture.planes:
            rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(plane.height, plane.line_size)
            self._stream.write(rows[:, : width * self._bits // 8].tobytes())
        self._stream.flush()
        self.count += 1


def _pixel_format(chroma: str) -> VideoFormat:
    match = _CHROMA.fullmatch(chroma)
    if match is None:
        raise UserError(f"the stream is C{chroma}; 4:2:0, 4:2:2, 4:4:4 and mono can be read.")
    if chroma == "mono":
        return VideoFormat("gray")
    sampling, bits = match.groups()
    return VideoFormat(f"yuv{sampling}p" + (f"{bits}le" if bits else ""))
