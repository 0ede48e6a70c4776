"""Making whole pictures of interlaced frames, which hold two moments in every other line."""

from collections import deque
from collections.abc import Iterator

import av.error
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Bob Weaver's filter; one picture for each frame, and frames that are whole stay as they are.
_FILTER = "bwdif", "mode=send_frame:parity=auto:deint=interlaced"


def deinterlaced(
    frames: Iterator[tuple[int, VideoFrame]], stream: VideoStream
) -> Iterator[tuple[int, VideoFrame]]:
    """Yields (index, frame) with whole pictures, at the times of the frames given."""
    graph = Graph()
    source, filter_ = graph.add_buffer(template=stream), graph.add(*_FILTER)
    sink = graph.add("buffersink")
    source.link_to(filter_)
    filter_.link_to(sink)
    graph.configure()
    waiting: deque[tuple[int, int | None, int]] = deque()  # a picture needs the frame behind it
    for index, frame in frames:
        waiting.append((index, frame.pts, frame.duration))
        graph.push(frame)
        yield from _finished(graph, waiting)
    graph.push(None)
    yield from _finished(graph, waiting)


def _finished(
    graph: Graph, waiting: deque[tuple[int, int | None, int]]
) -> Iterator[tuple[int, VideoFrame]]:
    while True:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(picture, VideoFrame)
        index, picture.pts, picture.duration = waiting.popleft()
        yield index, picture
