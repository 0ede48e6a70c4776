"""Reading video files through PyAV, frame by frame: upright RGB with the right colours.

Conversion to RGB follows the file's colour tags; without one for the matrix, the size decides (see
`colour`). Transfer curves are not converted: HDR code values go through as they are.
"""

import array
import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rvrt_jax.errors import UserError
from rvrt_jax.media import side_data
from rvrt_jax.media.colour import (
    ACCURATE,
    HDR_CURVES,
    MATRICES,
    PIXEL_FORMATS,
    RGB,
    UNSPECIFIED,
    Colour,
    untagged_matrix,
)
from rvrt_jax.media.containers import Scan, main_stream, open_container, scan_packets
from rvrt_jax.media.deinterlace import deinterlaced
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.joins import PartClock

_WITH_ALPHA = {8: "rgba", 16: "rgba64le"}

_LOOKED_AT = 5  # frames: of a telecined film 2 in 5 are interlaced

_log = logging.getLogger(__name__)


class VideoReader(FrameSource):
    """The frames of a video file, upright (rotation and mirroring tags are applied).

    They are uint8 for 8-bit video, else uint16 over the full range.
    rate: fps, the constant one, or the mean if is_constant is False.
    clock: unit of time in seconds; 1 / rate, or the file's own unit if is_constant is False.
    decoded: number of frames that there really are; None before all have been read once.
    offsets: what to add to the times of each part of a joined film, in seconds (see `joins`).
    is_excerpt, ends_early: whether the file has more before or behind; has more behind (see
    `excerpt`).
    pixel_format: FFmpeg's name of the first frame's, which says depth and colour resolution.
    has_captions: whether the first frames hold closed captions.
    """

    is_excerpt = ends_early = False

    def __init__(
        self,
        path: Path,
        *,
        damaged: Literal["error", "skip"] = "error",
        deinterlace: bool = False,
    ) -> None:
        """Reads through the file once, without decoding it.

        Raises UserError for what is no video and, unless damaged is "skip", for one cut short.
        damaged: "skip" leaves out the frames that cannot be decoded; the others keep their times.
        deinterlace: makes whole pictures of frames that the file calls interlaced.
        """
        if damaged not in ("error", "skip"):
            raise ValueError(f"damaged is {damaged!r}; give 'error' or 'skip'.")
        self.path, self.files, self.names = path, [path], None
        self._coded_size: tuple[int, int] | None = None  # of the first frame, as stored
        self._skip, self._deinterlace = damaged == "skip", deinterlace
        scan = scan_packets(path)
        if not scan.complete and not self._skip:
            raise UserError(
                f"{path} is cut short or broken at its end: about {scan.count} frames can be read. "
                "Copy it again, or pass damaged='skip' (--damaged=skip) to work with those."
            )
        with open_container(path) as container:
            stream = main_stream(container, path)
            frames = itertools.islice(self._decode(container, stream), _LOOKED_AT)
            frame = next((f for _, f in frames), None)
            if frame is None:
                raise UserError(f"{path} has no frame that can be decoded. Copy it again.")
            self._describe(container, stream, frame)
            self._look_at(itertools.chain([frame], (other for _, other in frames)))
            self._find_rate(stream, scan)
        self.length = scan.count
        self.offsets = scan.offsets
        if len(scan.offsets) > 1:
            again = len(scan.offsets) - 1
            _log.warning(
                "%s: its clock starts again %d times, as in joined films; the parts follow each "
                "other without a gap.",
                path,
                again,
            )
        self._stamps = array.array("q")
        self._durations = array.array("q")
        self.decoded: int | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        with open_container(self.path) as container:
            stream = main_stream(container, self.path)
            clock = PartClock(self.offsets, self._time_base)
            for index, frame in self._pictures(container, stream):
                if frame.pts is not None:
                    frame.pts += clock.offset(frame.pts, frame.duration)
                if index == len(self._stamps):
                    self._stamps.append(self._tick(index, frame))
                    duration = frame.duration * self._time_base / self.clock
                    self._durations.append(max(1, round(duration)))
                yield self._upright(frame, index, PIXEL_FORMATS[self.bits])
        self.decoded = len(self._stamps)

    def alphas(self) -> Iterator[np.ndarray]:
        with open_container(self.path) as container:
            for index, frame in self._pictures(container, main_stream(container, self.path)):
                yield self._upright(frame, index, _WITH_ALPHA[self.bits])[..., 3]

    def read_range(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yields frames start to stop - 1, the same as iterating does.

        Decoding begins at the key frame before them if the file's own times tell which that is,
        else at the first frame.
        """
        if self._index is not None and start < len(self._index):
            frames = self._seek(start)
            if frames is not None:
                yield from itertools.islice(frames, stop - start)
                return
        yield from itertools.islice(self, start, stop)

    def timing(self, index: int) -> tuple[int, int]:
        """Returns when a frame starts and how long it stays, in units of clock.

        Counted from the start of the file. Raises ValueError if the frame has not been read yet.
        """
        if index >= len(self._stamps):
            raise ValueError(
                f"{self.path}: the time of frame {index} is known only once it has been read; "
                f"{len(self._stamps)} have been. Read a frame before its result is written."
            )
        return self._stamps[index], self._durations[index]

    def _seek(self, start: int) -> Iterator[np.ndarray] | None:
        """Returns frame `start` and those after it; None if the file leads elsewhere."""
        assert self._index is not None
        wanted = int(self._index[start])
        frames = self._frames_from(wanted)
        first = next(frames, None)
        if first is None or first[0] != wanted:
            return None
        return itertools.chain([first[1]], (frame for _, frame in frames))

    def _frames_from(self, wanted: int) -> Iterator[tuple[int | None, np.ndarray]]:
        """Yields (time, frame) of those shown at `wanted` or later."""
        with open_container(self.path) as container:
            stream = main_stream(container, self.path)
            container.seek(wanted, stream=stream)
            for index, frame in self._decode(container, stream):
                if frame.pts is None or frame.pts >= wanted:
                    yield frame.pts, self._upright(frame, index, PIXEL_FORMATS[self.bits])

    def _describe(self, container: InputContainer, stream: VideoStream, frame: VideoFrame) -> None:
        """Takes size, depth and tags from the first frame; they must hold for all."""
        self._rotation, self._orientation = frame.rotation, side_data.orientation(frame, self.path)
        turned = self._orientation[0]
        size = frame.height, frame.width
        self.height, self.width = size[::-1] if turned else size
        self.pixel_format, self.hdr = frame.format.name, side_data.hdr(frame)
        self.bits = 16 if frame.format.components[0].bits > 8 else 8
        self.has_alpha = any(component.is_alpha for component in frame.format.components)
        self.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(1)
        if turned:
            self.sample_aspect_ratio = 1 / self.sample_aspect_ratio
        matrix = RGB if frame.format.is_rgb else frame.colorspace
        if matrix not in (RGB, UNSPECIFIED, *MATRICES):
            raise UserError(
                f"{self.path}: colour matrix {matrix} is not supported. Convert it first."
            )
        self.colour = Colour(matrix, frame.color_range, frame.color_primaries, frame.color_trc)
        self.start = max(Fraction(container.start_time or 0, av.time_base), Fraction(0))
        if frame.color_trc in HDR_CURVES:
            _log.warning("%s is HDR: its code values go through as they are.", self.path)

    def _look_at(self, frames: Iterable[VideoFrame]) -> None:
        """Finds out what the first frames say of the film."""
        interlaced = self.has_captions = False
        for frame in frames:
            interlaced |= frame.interlaced_frame
            self.has_captions |= side_data.has_captions(frame)
        if interlaced and not self._deinterlace:
            _log.warning(
                "%s is interlaced: moving edges will stay combed unless it is deinterlaced "
                "(deinterlace=True, --deinterlace).",
                self.path,
            )

    def _find_rate(self, stream: VideoStream, scan: Scan) -> None:
        """Sets fps, is_constant and clock."""
        rates = [_exact(rate) for rate in (stream.guessed_rate, stream.average_rate) if rate]
        if not rates or stream.time_base is None:
            raise UserError(f"{self.path} does not say how fast it plays. Convert it first.")
        self._time_base = stream.time_base
        if scan.count > 1 and scan.stamps is not None and np.all(np.diff(scan.stamps) == 1):
            rates.insert(0, 1 / stream.time_base)  # AVI counts frames: it is exact
        constant = [rate for rate in rates if scan.is_constant(self._time_base, rate)]
        self.is_constant = len(constant) > 0
        self.rate = self.fps = constant[0] if constant else rates[-1]
        self.clock = 1 / self.rate if constant else self._time_base
        # The sorted stamps are the right ones, provided that no frame gets lost.
        self._sorted_stamps = scan.stamps if scan.stored_order and not self._skip else None
        # Times by which a frame can be found; two frames of one time could not be told apart.
        self._index = None
        joined = len(scan.offsets) > 1
        unsuited = scan.stored_order or joined or self._skip or self._deinterlace
        if scan.stamps is not None and not unsuited:
            self._index = scan.stamps if np.all(np.diff(scan.stamps) > 0) else None
        if self.is_constant and scan.stamps is not None:
            # The first frame must fall on a multiple of clock, and nothing else before 0.
            first = int(scan.stamps[0]) * self._time_base
            count = max(0, math.ceil((first - self.start) / self.clock - Fraction(1, 10)))
            self.start = first - count * self.clock

    def _tick(self, index: int, frame: VideoFrame) -> int:
        """Returns the time of the next new frame in units of clock, later than the last one's."""
        earliest = self._stamps[-1] + 1 if self._stamps else 0
        stamp = frame.pts
        if self._sorted_stamps is not None and index < len(self._sorted_stamps):
            stamp = int(self._sorted_stamps[index])
        if stamp is None:
            return earliest
        return max(earliest, round((stamp * self._time_base - self.start) / self.clock))

    def _pictures(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Yields (index, frame), deinterlaced if that is wanted."""
        frames = self._decode(container, stream)
        return deinterlaced(frames, stream) if self._deinterlace else frames

    def _decode(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Yields (index, frame); damaged frames raise UserError or are left out."""
        index = 0
        for packet in container.demux(stream):
            if packet.size == 0 and packet.dts is not None:
                continue  # "show the last frame again" in AVI and Ogg
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                if not self._skip:
                    raise self._damage(index) from error
                _log.warning(
                    "%s: data after frame %d cannot be decoded; skipped.", self.path, index
                )
                continue
            # A picture of its own may be decoded without complaint from half of its data.
            piece = packet.is_corrupt and packet.is_keyframe
            for frame in frames:
                if frame.is_corrupt or piece:
                    if not self._skip:
                        raise self._damage(index)
                    _log.warning(
                        "%s: a frame after frame %d is damaged; skipped.", self.path, index
                    )
                    continue
                self._check_size(frame, index)
                yield index, frame
                index += 1

    def _check_size(self, frame: VideoFrame, index: int) -> None:
        if self._coded_size is None:
            self._coded_size = (frame.height, frame.width)
        if (frame.height, frame.width) != self._coded_size:
            (h, w), (new_h, new_w) = self._coded_size, (frame.height, frame.width)
            raise UserError(
                f"{self.path} changes its size from {w}x{h} to {new_w}x{new_h} at frame {index}. "
                "Cut it there and work on the parts."
            )

    def _damage(self, index: int) -> UserError:
        return UserError(
            f"{self.path} is damaged: {index} frames could be read, the next one is broken. "
            "Copy it again, or pass damaged='skip' (--damaged=skip) to leave out what "
            "cannot be decoded."
        )

    def _upright(self, frame: VideoFrame, index: int, pixel_format: str) -> np.ndarray:
        """Returns frame number `index` in R, G, B (, A) order, [height, width, 3 or 4]."""
        rgb = frame.reformat(
            format=pixel_format,
            src_colorspace=untagged_matrix(frame),
            interpolation=ACCURATE,
        ).to_ndarray()
        swap, mirror, flip = self._orientation
        if frame.rotation != self._rotation:
            # Asked for when needed only: PyAV then frees a frame no sooner than the collector runs.
            swap, mirror, flip = side_data.orientation(frame, self.path)
        if swap:
            rgb = rgb.swapaxes(0, 1)
        return np.ascontiguousarray(rgb[:: -1 if flip else 1, :: -1 if mirror else 1])


def _exact(rate: Fraction) -> Fraction:
    """Returns a rate n * 1000 / 1001 as such, which Matroska files bring back slightly rounded."""
    ntsc = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return ntsc if abs(ntsc / rate - 1) < 1e-6 else rate
