"""What lies beside the picture in a video file: copied packet by packet, never decoded."""

import io
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from rvrt_jax.media.joins import PartClock
from rvrt_jax.media.video_reader import VideoReader, main_stream, open_container

# Tags of the file itself, which the new file's muxer writes anew.
_OWN_TAGS = ("encoder", "major_brand", "minor_version", "compatible_brands")


class Companions:
    """Copies a source's audio, subtitles, attachments, chapters and tags into an open output.

    Packets go in step with the picture (`copy_until`), so that neither file is held in memory.
    Sound may begin a packet before the picture (AAC does); Matroska, which has no times below 0,
    then moves all streams by that packet.
    Names what the container cannot hold in `dropped`. A context manager: holds the source open.
    """

    def __init__(self, source: VideoReader, output: OutputContainer, dropped: list[str]) -> None:
        self._output = output
        self._start, self._offsets = source.start, source.offsets
        self._is_excerpt = source.is_excerpt
        self._targets: dict[int, Stream] = {}
        self._last: dict[int, int] = {}
        self._next: Packet | None = None
        self._open_files = ExitStack()
        container = self._open_files.enter_context(open_container(source.path))
        try:
            main = main_stream(container, source.path)
            for stream in container.streams:
                if stream.index != main.index and not self._add(stream, source.path):
                    dropped.append(_describe(stream))
            self._copy_tags(container, main)
        except BaseException:
            self._open_files.close()
            raise
        self._packets = self._demux(container, main)

    def __enter__(self) -> "Companions":
        return self

    def __exit__(self, *_) -> None:
        self._open_files.close()

    def copy_until(self, end: Fraction | None) -> None:
        """Copies the packets that start before `end` seconds into the file; None: all the rest."""
        while True:
            self._next = self._next or next(self._packets, None)
            if self._next is None or (end is not None and _seconds(self._next) >= end):
                return
            self._output.mux(self._next)
            self._next = None

    def _add(self, stream: Stream, path: Path) -> bool:
        """Opens an output stream for one of the source; False if the container cannot hold it."""
        if stream.type not in ("audio", "subtitle", "attachment"):
            return False
        if not _accepts(self._output.format.name, stream, path):
            return False
        target = self._output.add_stream_from_template(stream)
        target.metadata.update(stream.metadata)
        target.disposition = stream.disposition
        if stream.type != "attachment":  # an attachment has no packets
            self._targets[stream.index] = target
        return True

    def _copy_tags(self, container: InputContainer, main: Stream) -> None:
        tags = {k: v for k, v in container.metadata.items() if k.lower() not in _OWN_TAGS}
        self._output.metadata.update(tags)
        picture = self._output.streams.video[0]
        picture.metadata.update(
            {k: v for k, v in main.metadata.items() if k in ("language", "title")}
        )
        chapters = container.chapters()
        for chapter in chapters:
            shift = round(self._start / (chapter["time_base"] or 1))
            chapter["start"] -= shift
            chapter["end"] -= shift
        if self._is_excerpt:
            chapters = [chapter for chapter in chapters if chapter["end"] > 0]
            for chapter in chapters:
                chapter["start"] = max(0, chapter["start"])
        if chapters:
            self._output.set_chapters(chapters)

    def _demux(self, container: InputContainer, main: Stream) -> Iterator[Packet]:
        """Yields the packets to copy, their times counted from the start of the file."""
        if not self._targets:
            return
        wanted = [container.streams[index] for index in self._targets]
        clocks = {
            stream.index: PartClock(self._offsets, stream.time_base or Fraction(1))
            for stream in [main, *wanted]
        }
        joined = len(self._offsets) > 1
        for packet in container.demux([main, *wanted] if joined else wanted):
            if packet.size == 0 or packet.dts is None:
                continue
            index, clock = packet.stream_index, clocks[packet.stream_index]
            near = clocks[main.index].part
            if packet.stream.type in ("video", "audio"):
                shift = clock.offset(packet.dts, packet.duration or 0, near=near)
            else:
                shift = clock.offset_in(near)  # they come too seldom to tell
            if index == main.index:
                continue
            shift -= round(self._start / packet.time_base)
            if self._is_excerpt and packet.dts + shift < 0:
                continue  # else Matroska, without times below 0, would delay the picture
            # Muxers stop at times that stand still, which files in the wild do have.
            dts = max(packet.dts + shift, self._last.get(index, packet.dts + shift - 1) + 1)
            pts = packet.pts + shift if packet.pts is not None else dts
            self._last[index] = dts
            packet.dts, packet.pts = dts, max(pts, dts)
            packet.stream = self._targets[index]
            yield packet


def _accepts(container: str, stream: Stream, path: Path) -> bool:
    """Tells whether a container can hold a stream, by writing a short one in memory.

    path: of the source. Some sound is refused with its first packet, when the head is written.
    """
    if stream.type == "attachment":
        return container == "matroska"
    if container == "avi" and not _fits_avi(stream):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            target = trial.add_stream_from_template(stream)
            trial.start_encoding()
            if stream.type == "audio":
                for packet in _first_packets(path, stream.index):
                    packet.stream = target
                    trial.mux(packet)
    except (ValueError, av.error.FFmpegError):  # ValueError: PyAV finds no such combination
        return False
    return True


def _first_packets(path: Path, index: int) -> list[Packet]:
    with open_container(path) as container:
        packets = container.demux(container.streams[index])
        return list(itertools.islice((p for p in packets if p.size and p.dts is not None), 3))


def _fits_avi(stream: Stream) -> bool:
    """Tells whether AVI can time a stream: it counts samples, so packets must be of one length."""
    if not isinstance(stream, AudioStream):
        return False
    return stream.codec_context.frame_size > 0 or stream.codec_context.name.startswith("pcm_")


def _seconds(packet: Packet) -> Fraction:
    assert packet.dts is not None
    return packet.dts * packet.time_base


def _describe(stream: Stream) -> str:
    codec = stream.codec_context.name if stream.codec_context is not None else "no codec"
    return f"stream {stream.index} ({stream.type}, {codec})"
