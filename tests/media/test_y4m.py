"""YUV4MPEG2 on pipes, against FFmpeg's own reader and writer."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from helpers import films

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames
from rvrt_jax.media.y4m import Y4mReader, Y4mWriter


def y4m(frames, pix_fmt):
    """Returns frames as FFmpeg writes them."""
    file = io.BytesIO()
    with av.open(file, "w", format="yuv4mpegpipe", options={"strict": "-1"}) as out:
        stream = out.add_stream("wrapped_avframe", rate=Fraction(30000, 1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.options = {"strict": "-1"}
        for k, frame in enumerate(frames):
            rgb = "rgb24" if frame.dtype == np.uint8 else "rgb48le"
            picture = VideoFrame.from_ndarray(frame, format=rgb).reformat(format=pix_fmt)
            picture.pts = k
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "gray"])
@pytest.mark.parametrize("size", [(48, 64), (29, 37)])
def test_reads_what_ffmpeg_writes_as_ffmpeg_reads_it(tmp_path, pix_fmt, size):
    data = y4m(films.smooth(3, height=size[0], width=size[1]), pix_fmt)
    (tmp_path / "in.y4m").write_bytes(data)
    reader = Y4mReader(io.BytesIO(data))
    assert (reader.height, reader.width) == size and reader.bits == 8
    assert reader.fps == Fraction(30000, 1001) and not reader.length_known
    frames = np.stack(list(reader))
    with open_frames(tmp_path / "in.y4m") as expected:
        np.testing.assert_array_equal(frames, expected.read_all())


def test_ten_bits_come_back_through_a_pipe():
    frames = np.uint16(257) * films.smooth(3)
    pipe = io.BytesIO()
    writer = Y4mWriter(pipe, height=48, width=64, bits=16, fps=Fraction(25))
    for frame in frames:
        writer.write(frame)
    pipe.seek(0)
    reader = Y4mReader(pipe)
    assert reader.bits == 16
    # 10 bits over the limited range: half a step of 65535 / 877, and the matrix there and back.
    assert np.abs(np.stack(list(reader)).astype(int) - frames).max() < 2 * 65535 / 877


@pytest.mark.parametrize("size", [(48, 64), (29, 37)])
def test_ffmpeg_reads_what_is_written(tmp_path, size):
    frames = films.smooth(3, height=size[0], width=size[1])
    with open(tmp_path / "out.y4m", "wb") as file:
        writer = Y4mWriter(file, height=size[0], width=size[1], bits=8, fps=films.NTSC)
        for frame in frames:
            writer.write(frame)
    assert writer.count == 3
    with open_frames(tmp_path / "out.y4m") as source:
        assert source.fps == films.NTSC
        assert np.abs(source.read_all().astype(int) - frames).max() <= 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not YUV4MPEG2"),
        (b"RIFF....", "not YUV4MPEG2"),
        (b"YUV4MPEG2 W4 H4\n", "lacks a size or a rate"),
        (b"YUV4MPEG2 W4 H4 F25:1 It\n", "interlaced"),
        (b"YUV4MPEG2 W4 H4 F25:1 C410\n", "is C410"),
        (b"YUV4MPEG2 W4 H4 F25:1\nFRAME\n" + bytes(23), "ends within frame 0"),
        (b"YUV4MPEG2 W4 H4 F25:1\nFRAME\n" + bytes(24) + b"F\n", "frame 1 .* does not begin"),
    ],
)
def test_what_is_not_a_stream_is_refused(data, message):
    with pytest.raises(UserError, match=message):
        list(Y4mReader(io.BytesIO(data)))
