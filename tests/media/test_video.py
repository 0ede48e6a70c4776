"""Pictures of video files: sizes, depths, colours, orientation."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from helpers.films import HEIGHT, NTSC, WIDTH, copy, h264, make, noise, smooth, times

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames, open_writer

# --- pictures


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
@pytest.mark.parametrize("bits", [8, 16])
def test_ffv1_is_lossless(tmp_path, suffix, bits):
    frames = noise(4, dtype=np.uint8 if bits == 8 else np.uint16)
    path = tmp_path / f"a{suffix}"
    size = {"height": HEIGHT, "width": WIDTH}
    with open_writer(path, fps=NTSC, bits=bits, codec="ffv1", **size) as writer:
        for frame in frames:
            writer.write(frame)
    source = open_frames(path)
    assert (source.length, source.bits, source.fps, source.names) == (4, bits, NTSC, None)
    np.testing.assert_array_equal(source.read_all(), frames)
    np.testing.assert_array_equal(source.read_all(), frames)  # every iteration starts anew


@pytest.mark.parametrize("height, width", [(48, 64), (HEIGHT, WIDTH), (48, 37), (29, 64)])
@pytest.mark.parametrize(
    "suffix, codec, bits",
    [
        (".mp4", None, 8),
        (".mp4", None, 16),
        (".mkv", "libx264", 8),
        (".mov", "libx264", 8),
        (".avi", "libx264", 8),
        (".mp4", "libx265", 16),
        (".webm", None, 8),
        (".webm", None, 16),
        (".mov", "prores_ks", 16),
    ],
)
def test_every_codec_keeps_size_and_picture(tmp_path, suffix, codec, bits, height, width):
    if codec == "libx265":
        width += 32  # narrower ones are refused, see below
    frames = smooth(5, height=height, width=width)
    if bits == 16:
        frames = frames.astype(np.uint16) * 257
    path = tmp_path / f"a{suffix}"
    with open_writer(
        path, fps=25, height=height, width=width, bits=bits, codec=codec, crf=10
    ) as writer:
        for frame in frames:
            writer.write(frame)
    source = open_frames(path)
    assert (source.height, source.width, source.bits, source.fps) == (height, width, bits, 25)
    error = np.abs(source.read_all().astype(float) - frames) * 255 / np.iinfo(frames.dtype).max
    assert error.mean() < 4  # about what half the colour resolution costs; 20 and more if mixed up
    with av.open(str(path)) as container:
        pix_fmt = container.streams.video[0].pix_fmt
    assert ("10" in pix_fmt) == (bits == 16)
    if codec == "libx264":
        assert pix_fmt == ("yuv420p" if height % 2 == width % 2 == 0 else "yuv444p")


@pytest.mark.parametrize(("codec", "height", "width"), [("hevc", 48, 48), ("av1", 16, 128)])
def test_sizes_at_which_encoders_crash_or_hang_are_refused(tmp_path, codec, height, width):
    with pytest.raises(UserError, match=f"the frames are {width}x{height}; .* Use h264"):
        with open_writer(tmp_path / "a.mp4", fps=25, codec=codec, height=height, width=width):
            pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (5, 7), (16, 2000), (1, 3)])
@pytest.mark.parametrize("suffix, codec", [(".mp4", None), (".mkv", "ffv1"), (".webm", None)])
def test_tiny_and_narrow_frames(tmp_path, size, suffix, codec):
    """Of one colour, which every colour resolution keeps."""
    height, width = size
    frames = np.zeros((3, height, width, 3), np.uint8) + np.uint8([200, 40, 90])
    path = tmp_path / f"a{suffix}"
    with open_writer(path, fps=25, height=height, width=width, codec=codec, crf=5) as writer:
        for frame in frames:
            writer.write(frame)
    read = open_frames(path).read_all()
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).max() <= (0 if codec == "ffv1" else 6)


def test_x264_frames_are_not_cut_into_slices(tmp_path):
    """Each slice forgets what lies beside it, which costs bytes at equal quality."""
    path, frames = tmp_path / "a.mp4", smooth(5, height=256, width=320)
    with open_writer(path, fps=25, height=256, width=320) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    assert [pictures(packet) for packet in packets] == [1] * 5


def pictures(packet):
    """Counts the slices in an MP4's packet: units of type 1 and 5 (H.264, table 7-1)."""
    count, at = 0, 0
    while at < len(packet):
        count += packet[at + 4] & 31 in (1, 5)
        at += 4 + int.from_bytes(packet[at : at + 4], "big")
    return count


def test_one_frame_is_a_clip(tmp_path):
    h264(tmp_path / "in.mp4", smooth(1))
    copy(
        tmp_path / "in.mp4",
        tmp_path / "out.mp4",
        scale=2,
        transform=lambda f: f.repeat(2, 0).repeat(2, 1),
    )
    source = open_frames(tmp_path / "out.mp4")
    assert (source.length, source.height, source.width, source.fps) == (1, 96, 128, NTSC)
    assert source.read_all().shape == (1, 96, 128, 3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips_with_reordering_encoders(tmp_path, count):
    for attempt in range(3):  # what x265 leaves undefined differs from run to run
        for codec in ("libx264", "libx265"):
            with open_writer(
                tmp_path / f"{attempt}{codec}.mp4", fps=25, height=48, width=64, codec=codec
            ) as writer:
                for frame in smooth(count):
                    writer.write(frame)
            assert times(tmp_path / f"{attempt}{codec}.mp4") == [
                Fraction(k, 25) for k in range(count)
            ]


def test_reading_and_writing_do_not_pile_up_frames(tmp_path):
    count, height, width = 60, 120, 160
    path = make(tmp_path / "in.mkv", smooth(count, height=height, width=width))
    copy(path, tmp_path / "warm.mp4")
    tracemalloc.start()
    copy(path, tmp_path / "out.mp4")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * height * width * 3


# --- colours

KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
PALETTE = np.array(
    [[0, 0, 0], [255, 255, 255], [200, 40, 90], [20, 220, 60], [30, 60, 230], [128, 128, 128]]
)


def to_yuv(rgb, matrix, *, full):
    """Returns Y, Cb, Cr for R, G, B, all in 0..255, by the formulas of ITU-R BT.601/709/2020."""
    kr, kb = KR_KB[matrix]
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if full:
        return np.stack([255 * y, 255 * cb + 128, 255 * cr + 128])
    return np.stack([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr])


def palette_yuv(matrix, *, full, height=48):
    """Returns [3, h, 96] uint8 planes of six upright bars in the colours of PALETTE."""
    bars = to_yuv(PALETTE, matrix, full=full).repeat(16, axis=1)
    return np.rint(bars).clip(0, 255).astype(np.uint8)[:, None].repeat(height, 1)


def write_planes(path, planes, **tags):
    """Writes [3, h, w] Y, Cb, Cr without loss as they are."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        _, stream.height, stream.width = planes.shape
        stream.pix_fmt = "yuv444p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        picture = VideoFrame.from_ndarray(planes, format="yuv444p")
        picture.pts = 0
        out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", KR_KB)
def test_tagged_colours(tmp_path, matrix, full):
    tags = {"colorspace": matrix, "color_range": 2 if full else 1}
    tags |= {"color_primaries": 9 if matrix == 9 else 1, "color_trc": 1}
    path = write_planes(tmp_path / "in.mkv", palette_yuv(matrix, full=full), **tags)
    frame = open_frames(path).read_all()[0]
    np.testing.assert_allclose(frame[24, 8::16], PALETTE, atol=2)  # 8-bit YUV has steps of about 1

    copy(path, tmp_path / "out.mp4", crf=1, pix_fmt="yuv420p")
    with av.open(str(tmp_path / "out.mp4")) as container:
        written = next(container.decode(video=0))
        assert written.format.name in ("yuv420p", "yuvj420p")
        luma = np.array(written.planes[0]).reshape(48, -1)[24, 8:96:16]
    assert {
        "colorspace": written.colorspace,
        "color_range": written.color_range,
        "color_primaries": written.color_primaries,
        "color_trc": written.color_trc,
    } == tags
    np.testing.assert_allclose(luma, to_yuv(PALETTE, matrix, full=full)[0], atol=2)
    frame = open_frames(tmp_path / "out.mp4").read_all()[0]
    np.testing.assert_allclose(frame[24, 8::16], PALETTE, atol=4)


@pytest.mark.parametrize("height, matrix", [(719, 6), (720, 1)])
def test_untagged_colours_go_by_size(tmp_path, height, matrix):
    path = write_planes(tmp_path / "in.mkv", palette_yuv(matrix, full=False, height=height))
    frame = open_frames(path).read_all()[0]
    np.testing.assert_allclose(frame[height // 2, 8::16], PALETTE, atol=2)


def test_matrix_of_untagged_input_goes_by_the_size_of_the_output(tmp_path):
    path = write_planes(tmp_path / "in.mkv", palette_yuv(6, full=False, height=360))
    twice = {"scale": 2, "transform": lambda f: f.repeat(2, 0).repeat(2, 1)}
    for name, options, matrix in (("same.mp4", {}, 6), ("large.mp4", twice, 1)):
        copy(path, tmp_path / name, crf=1, **options)
        with av.open(str(tmp_path / name)) as container:
            assert next(container.decode(video=0)).colorspace == matrix
        frame = open_frames(tmp_path / name).read_all()[0]
        bar = 16 * options.get("scale", 1)
        np.testing.assert_allclose(frame[99, bar // 2 :: bar], PALETTE, atol=4)


def test_ten_bits_are_read_and_written(tmp_path):
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16)
    frame = np.broadcast_to(ramp[None, :, None], (16, 1024, 3))
    path = make(
        tmp_path / "in.mkv", [frame], pix_fmt="gbrp16le", rgb="rgb48le", options={"level": "3"}
    )
    assert open_frames(path).bits == 16
    copy(path, tmp_path / "out.mp4", codec="libx265", crf=0, pix_fmt="yuv420p10le")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p10le"
    read = open_frames(tmp_path / "out.mp4").read_all()[0]
    assert len(np.unique(read[8])) > 600  # 8 bits would leave 256
    np.testing.assert_allclose(read[8].astype(int), frame[8], atol=200)  # 3 steps of 10 bits


# --- orientation and pixel shape


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_come_upright_and_are_written_upright(tmp_path, degrees, mirrored):
    stored = smooth(3)
    path = h264(
        tmp_path / "in.mp4",
        stored,
        rotation=(degrees, mirrored),
        sample_aspect_ratio=Fraction(4, 3),
    )
    with av.open(str(path)) as container:
        rotation = next(container.decode(video=0)).rotation
    if not mirrored:
        assert rotation % 360 == degrees  # counter-clockwise
        upright = np.rot90(stored, k=degrees // 90, axes=(1, 2))
    else:  # turned, then mirrored
        upright = np.rot90(stored, k=degrees // 90, axes=(1, 2))[:, :, ::-1]
    source = open_frames(path)
    assert (source.height, source.width) == upright.shape[1:3]
    assert np.abs(source.read_all().astype(int) - upright).mean() < 2

    copy(path, tmp_path / "out.mp4", crf=5)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0
        assert (frame.height, frame.width) == upright.shape[1:3]
        shape = Fraction(3, 4) if degrees % 180 else Fraction(4, 3)
        assert container.streams.video[0].sample_aspect_ratio == shape
    assert np.abs(open_frames(tmp_path / "out.mp4").read_all().astype(int) - upright).mean() < 6


def test_slanted_video_is_refused(tmp_path):
    path = h264(tmp_path / "in.mp4", smooth(2), rotation=(30, False))
    with pytest.raises(UserError, match="slant"):
        open_frames(path)


def test_pixel_shape(tmp_path, caplog):
    path = h264(tmp_path / "in.mp4", smooth(2), sample_aspect_ratio=Fraction(16, 11))
    copy(path, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
    writer = copy(path, tmp_path / "lossless.mkv", codec="ffv1")
    assert writer.dropped == ["the pixel shape 16:11 (ffv1)"]
    assert "16:11" in caplog.text
