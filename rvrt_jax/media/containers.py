"""Opening video files, and finding out whether they are whole.

FFmpeg reads a file that was cut short without complaint and merely stops early. MP4 and MOV boxes
(ISO/IEC 14496-12), EBML elements of Matroska and WebM (RFC 8794, RFC 9559) and the RIFF chunks of
AVI all state their length, so that comparing it with the file's size finds the cut.
"""

import array
import collections
import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from rvrt_jax.errors import UserError
from rvrt_jax.media.joins import find_parts

_NOT_VIDEO_FORMATS = (
    # FFmpeg plays text files, art made of characters (which it sees in any bytes), pictures, ...
    *("tty", "bin", "xbin", "adf", "idf", "ico", "image2"),
    # ... and lists of other files, which nobody would then know to be inputs.
    *("concat", "hls", "dash", "imf"),
)
_LONGEST_TAIL = 1000  # packets kept to try out the end of a file; a few key frame intervals
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
# Only these count as missing: some writers leave padding behind the last box that is none.
_MP4_NEEDED_BOXES = (b"moov", b"mdat", b"moof")
_EBML_HEADER, _MATROSKA_SEGMENT = 0x1A45DFA3, 0x18538067
_RIFF_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # left by writers that could not go back


@dataclass(frozen=True)
class Scan:
    """What the packets tell without decoding.

    stamps: the times to show, sorted; None if any packet has none. stored_order: the file numbers
    its frames as they are stored, so that only the sorted stamps tell when frames are shown.
    complete: the file does not look cut short. offsets: what to add to the times of each part of a
    joined film, in seconds (see `joins`), which stamps have in them; (0,) for all other files.
    """

    count: int
    stamps: np.ndarray | None
    stored_order: bool
    complete: bool
    offsets: tuple[Fraction, ...]

    def is_constant(self, time_base: Fraction, rate: Fraction) -> bool:
        """Tells whether all frames are where a rate puts them, but for rounding of their stamps."""
        if self.stamps is None or len(self.stamps) == 0:
            return True  # without stamps the rate is all there is
        seconds = (self.stamps - self.stamps[0]) * float(time_base)
        error = np.abs(seconds - np.arange(len(seconds)) / float(rate)).max()
        # One unit of the file's clock, or 1 ms where it came from a file with such a clock
        # (Matroska).
        rounding = max(float(time_base), 1e-3) * 1.01
        return bool(error <= min(rounding, 0.25 / float(rate)))


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Opens a video file; raises UserError if it is none or lacks its index."""
    try:
        # Playlists must not make FFmpeg fetch other things; some AVI tags are not UTF-8. FFmpeg
        # takes any clock of a transport stream that starts again for one that has run over.
        options = {"protocol_whitelist": "file", "correct_ts_overflow": "0"}
        # A name such as film:1.mkv stands for no protocol where folders come before it.
        container = av.open(os.path.abspath(path), "r", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if missing_bytes(path) is None:
            raise UserError(
                f"{path} is not a video that FFmpeg can read ({error.strerror}). "
                "Give a video file, a folder of images or a pattern such as 'frames/*.png'."
            ) from error
        raise UserError(
            f"{path} is a damaged or unfinished video ({error.strerror}): its index is missing or "
            "broken, and no frame can be read. Copy or export it again."
        ) from error
    with container:
        if container.format.name in _NOT_VIDEO_FORMATS or container.format.name.endswith("_pipe"):
            raise UserError(f"{path} is not a video, but {container.format.long_name}.")
        yield container


def holds_video(path: Path) -> bool:
    """Tells by its content whether a file is a video."""
    try:
        with open_container(path) as container:
            main_stream(container, path)
            # FFmpeg finds pictures of this kind inside other files too, such as PDF.
            loose = container.format.name == "mjpeg"
    except UserError:
        return False
    return not loose or path.read_bytes()[:2] == b"\xff\xd8"


def main_stream(container: InputContainer, path: Path) -> VideoStream:
    """Returns the first video stream but cover pictures; raises UserError if there is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "NONE"  # with frame threads damage is at times not reported
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
    raise UserError(f"{path} has no picture, only {kinds} streams. Give a file with video.")


def scan_packets(path: Path) -> Scan:
    """Reads all packets: counts the frames to show and finds out whether the end is missing.

    Where the container does not declare its size, the packets from the last key frame on are
    decoded: a file that was cut anywhere ends in a broken frame.
    """
    tail, piece = collections.deque(maxlen=_LONGEST_TAIL), None
    with open_container(path) as container:
        stream = main_stream(container, path)
        times = _Times(container)
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_keyframe:
                tail.clear()
            tail.append(packet)
            if piece is not None:  # it is not the end that is missing
                times.take(piece)
            piece = packet if packet.is_corrupt else None
            if piece is None and not packet.is_discard:  # which lies before an edited film's start
                times.take(packet)
        missing = missing_bytes(path)
        complete = missing == 0 or (missing is None and piece is None and _decodes(tail))
        return times.scan(stream, complete=complete)


class _Times:
    """Takes the times of packets, and finds out when frames are shown."""

    def __init__(self, container: InputContainer) -> None:
        self._avi = container.format.name == "avi"  # which has no times to show
        self._flags = container.format.flags
        self._count, self._stamped = 0, True
        self._stamps, self._dts, self._durations = (array.array("q") for _ in range(3))

    def take(self, packet: Packet) -> None:
        self._count += 1
        stamp = packet.dts if self._avi else packet.pts
        if stamp is None:
            self._stamped = False
            return
        self._stamps.append(stamp)
        self._dts.append(stamp if packet.dts is None else packet.dts)
        self._durations.append(packet.duration or 0)

    def scan(self, stream: VideoStream, *, complete: bool) -> Scan:
        times, dts, durations = (
            np.array(x, np.int64) for x in (self._stamps, self._dts, self._durations)
        )
        offsets, stored_order = [0], self._avi
        if self._flags & Flags.no_timestamps.value and len(np.unique(durations)) == 1:
            # Raw streams: what FFmpeg makes up is wrong where frames are reordered.
            times, stored_order = np.arange(len(times)) * durations[0], True
        elif self._flags & Flags.ts_discont.value:
            part, offsets = find_parts(dts, durations)
            # Where a clock runs over, times to show do so before times to decode.
            part = np.minimum(part + (times < dts), len(offsets) - 1)
            times = times + np.array(offsets)[part]
        reordered = bool(np.any(np.diff(times) < 0))
        stored_order = stored_order or (not reordered and stream.codec_context.has_b_frames)
        assert stream.time_base is not None
        seconds = tuple(offset * stream.time_base for offset in offsets)
        stamps = np.sort(times) if self._stamped else None
        return Scan(self._count, stamps, bool(stored_order), complete, seconds)


def missing_bytes(path: Path) -> int | None:
    """Returns how many bytes the file lacks: 0 for a whole one, None if its format does not say.

    None: another format, or a stream recorded without a declared size. Reads a few headers only.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[4:8] in _MP4_FIRST_BOXES:
            return _missing_mp4(file, size)
        if start[:4] == _EBML_HEADER.to_bytes(4, "big"):
            return _missing_matroska(file, size)
        if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
            return _missing_riff(file, size)
    return None


def _missing_mp4(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack_from(">Q", header, 8)
        if length < 8:  # 0: the box reaches to the end; else no box at all
            return 0
        at += length
        if at > size:
            return at - size if kind in _MP4_NEEDED_BOXES else 0
    return 0


def _missing_matroska(file: BinaryIO, size: int) -> int | None:
    file.seek(0)
    while True:
        kind, length = _read_vint(file, keep_marker=True), _read_vint(file, keep_marker=False)
        if kind not in (_EBML_HEADER, _MATROSKA_SEGMENT) or length is None:
            return None
        end = file.tell() + length
        if kind == _MATROSKA_SEGMENT or end > size:
            return max(0, end - size)
        file.seek(end)


def _read_vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """Reads an EBML number of 1 to 8 bytes; None at the end of the file and for "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big")
    if keep_marker:
        return value
    value -= 1 << (7 * count)
    return None if value == (1 << (7 * count)) - 1 else value


def _missing_riff(file: BinaryIO, size: int) -> int | None:
    at = 0
    while at + 12 <= size:  # a large AVI is a chain of RIFF chunks
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            return 0
        if length in _RIFF_UNKNOWN_SIZES:
            return None
        at += 8 + length + length % 2
    return max(0, at - size - 1)  # the last padding byte is often left out


def _decodes(packets: collections.deque[Packet]) -> bool:
    """Tells whether frames from a key frame on are whole; True if there is no key frame to try.

    Frames shown before the key frame need earlier ones and are not looked at.
    """
    if not packets or not packets[0].is_keyframe:
        return True
    key = packets[0]
    try:
        frames = [frame for packet in packets for frame in packet.decode() if frame.is_corrupt]
        frames += [frame for frame in key.stream.decode(None) if frame.is_corrupt]
    except av.error.FFmpegError:
        return False
    return all(None not in (f.pts, key.pts) and f.pts < key.pts for f in frames)
