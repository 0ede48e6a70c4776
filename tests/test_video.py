"""Video files: colours, time, rotation, what lies beside the picture, and broken files.

Inputs are made with PyAV itself, and outputs read back with it, apart from the code under test.
"""

import logging
import os
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from rvrt_jax.data.containers import missing_bytes
from rvrt_jax.data.frames import open_frames, open_writer
from rvrt_jax.data.video import VideoReader
from rvrt_jax.errors import UserError

HEIGHT, WIDTH = 29, 37  # odd, and different
NTSC = Fraction(30000, 1001)


def noise(count, *, height=HEIGHT, width=WIDTH, dtype=np.uint8):
    """Returns a different random picture for every frame, [t, h, w, 3]."""
    shape = (count, height, width, 3)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def smooth(count, *, height=48, width=64):
    """Returns moving waves that lossy codecs keep well, [t, h, w, 3] uint8."""
    t, y, x = np.ogrid[:count, :height, :width]
    waves = [np.sin((x + 2 * t) / 9), np.sin((y - t) / 7), np.cos((x + y) / 11 + t / 5)]
    return np.rint(127.5 + 110 * np.stack(np.broadcast_arrays(*waves), -1)).astype(np.uint8)


def make(
    path,
    frames,
    *,
    codec="ffv1",
    pix_fmt="bgr0",
    rgb="rgb24",
    rate: Fraction | int = NTSC,
    stamps=None,
    time_base=None,
    rotation=None,
    options=None,
    container_options=None,
    **context,
):
    """Encodes frames as they are; `context` are attributes of the codec context."""
    with av.open(str(path), "w", container_options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = np.asarray(frames[0]).shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for k, frame in enumerate(frames):
            picture = VideoFrame.from_ndarray(frame, format=rgb)
            if pix_fmt != rgb:
                picture = picture.reformat(format=pix_fmt)
            picture.pts = k if stamps is None else stamps[k]
            picture.time_base = time_base or 1 / Fraction(rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def h264(path, frames, **options):
    """Encodes frames with an even size as almost lossless H.264 with B-frames."""
    return make(path, frames, codec="libx264", pix_fmt="yuv444p", options={"qp": "1"}, **options)


def copy(source, target, *, transform=lambda frame: frame, count=None, scale=1, **options):
    """Passes a clip through reader and writer; returns the writer."""
    with open_frames(source) as reader:
        size = {"height": reader.height * scale, "width": reader.width * scale}
        fixed = {"fps": reader.fps, "bits": reader.bits, "source": reader}
        with open_writer(target, **size, **fixed, **options) as writer:
            for k, frame in enumerate(reader):
                if k == count:
                    break
                writer.write(np.ascontiguousarray(transform(frame)))
            return writer


def times(path):
    """Returns when each frame is shown, in seconds, in order."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets(path, kind):
    """Returns (bytes, seconds) of the packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        read = [p for p in container.demux(stream) if p.size > 0]
        return [(bytes(p), p.pts * p.time_base) for p in read]


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
    """Returns Y, Cb, Cr in 0..255 for R, G, B in 0..255, by the formulas of ITU-R BT.601/709/2020."""
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

    copy(path, tmp_path / "out.mp4", crf=1)
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
    copy(path, tmp_path / "out.mp4", codec="libx265", crf=0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p10le"
    read = open_frames(tmp_path / "out.mp4").read_all()[0]
    assert len(np.unique(read[8])) > 600  # 8 bits would leave 256
    np.testing.assert_allclose(read[8].astype(int), frame[8], atol=200)  # 3 steps of 10 bits


# --- time


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(60000, 1001), Fraction(25, 2)])
def test_frame_rate_is_kept(tmp_path, suffix, rate):
    path = h264(tmp_path / "in.mp4", smooth(9), rate=rate)
    copy(path, tmp_path / f"out{suffix}")
    source = open_frames(tmp_path / f"out{suffix}")
    assert (source.fps, source.length) == (rate, 9)


def test_constant_rate_survives_the_milliseconds_of_matroska(tmp_path):
    path = h264(tmp_path / "in.mkv", smooth(20))
    assert open_frames(path).fps == NTSC
    copy(path, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == [k / NTSC for k in range(20)]


STAMPS = [0, 3003, 6006, 25000, 28003, 31006, 31506, 40000]  # in 1/90000 s


@pytest.mark.parametrize("suffix, error", [(".mp4", 0), (".mov", 0), (".mkv", 0.0005)])
def test_variable_frame_rate_keeps_its_time_stamps(tmp_path, suffix, error):
    clock = Fraction(1, 90000)
    path = h264(tmp_path / "in.mp4", smooth(8), stamps=STAMPS, time_base=clock)
    assert times(path) == [stamp * clock for stamp in STAMPS]
    copy(path, tmp_path / f"out{suffix}")
    read = times(tmp_path / f"out{suffix}")
    np.testing.assert_allclose([float(t) for t in read], [s / 90000 for s in STAMPS], atol=error)
    reader = VideoReader(tmp_path / f"out{suffix}")
    assert not reader.is_constant


def test_variable_frame_rate_does_not_go_into_avi(tmp_path):
    path = h264(tmp_path / "in.mp4", smooth(8), stamps=STAMPS, time_base=Fraction(1, 90000))
    with pytest.raises(UserError, match="variable frame rate, which AVI cannot hold"):
        copy(path, tmp_path / "out.avi")
    assert os.listdir(tmp_path) == ["in.mp4"]


def test_b_frames_in_avi_do_not_scramble_time(tmp_path):
    path = h264(tmp_path / "in.avi", smooth(12), rate=25)  # AVI numbers frames as stored
    copy(path, tmp_path / "out.mp4")
    read = times(tmp_path / "out.mp4")
    assert np.diff([float(t) for t in read]) == pytest.approx([0.04] * 11)
    frames = open_frames(tmp_path / "out.mp4").read_all().astype(int)
    assert np.abs(frames - smooth(12)).mean() < 4


def test_late_start_is_dropped(tmp_path):
    options = {"codec": "mpeg2video", "pix_fmt": "yuv420p", "rate": 25}
    path = make(tmp_path / "in.ts", smooth(5), stamps=range(50, 55), **options)
    assert times(path)[0] >= 2  # as in a piece of a broadcast
    copy(path, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == [Fraction(k, 25) for k in range(5)]


def test_writing_ahead_of_reading_is_refused(tmp_path):
    path = h264(tmp_path / "in.mp4", smooth(3))
    source = open_frames(path)
    with pytest.raises(ValueError, match="frame 0 is known only once it has been read"):
        with open_writer(
            tmp_path / "out.mp4", fps=None, height=48, width=64, source=source
        ) as writer:
            writer.write(smooth(1)[0])
    with pytest.raises(ValueError, match="fps is 24, but the source plays at 30000/1001"):
        with open_writer(tmp_path / "out.mp4", fps=24, height=48, width=64, source=source):
            pass
    with pytest.raises(UserError, match="has its own frame rate"):
        open_frames(path, fps=24)


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


# --- what lies beside the picture


def add_sound(out, codec):
    """Adds an audio stream of about a second; returns the function that writes it."""
    stream = out.add_stream(codec, rate=48000, layout="mono")
    stream.metadata["language"] = "fra"

    def write_sound():
        tone = np.sin(np.arange(48000) / 20).astype(np.float32)[None]
        formats = {"aac": "fltp", "libopus": "flt", "pcm_s16le": "s16", "flac": "s16"}
        tone = tone if formats[codec] != "s16" else np.int16(tone * 9999)
        size = 960
        for start in range(0, 48000, size):
            frame = av.AudioFrame.from_ndarray(
                tone[:, start : start + size], format=formats[codec], layout="mono"
            )
            frame.rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    return write_sound


def film(path, *, audio="aac", count=25, attachment=False, chapters=False):
    """Makes a film of one second with sound and the like."""
    frames = smooth(count)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv444p"
        write_sound = add_sound(out, audio)
        out.metadata["title"] = "A film"
        if attachment:
            out.add_attachment("font.ttf", "application/x-truetype-font", b"letters")
        if chapters:
            out.set_chapters(
                [
                    {
                        "id": k,
                        "start": 400 * k,
                        "end": 400 * (k + 1),
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": f"Part {k}"},
                    }
                    for k in range(2)
                ]
            )
        for k, frame in enumerate(frames):
            picture = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv444p")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        write_sound()
    return path


def test_sound_and_picture_stay_in_step(tmp_path):
    # A transport stream begins with the sound; the picture follows by a part of a frame.
    path = film(tmp_path / "in.ts")
    before = times(path)[0] - packets(path, "audio")[0][1]
    assert before % Fraction(1, 25) > 0.01
    for name in ("out.mp4", "out.mkv"):
        copy(path, tmp_path / name)
        after = times(tmp_path / name)[0] - packets(tmp_path / name, "audio")[0][1]
        assert abs(after - before) < 0.0011


def test_what_a_container_refuses_at_the_last_moment_is_reported(tmp_path):
    path = film(tmp_path / "in.mkv", audio="flac")  # MOV takes it, and then does not
    assert copy(path, tmp_path / "out.mov").dropped == ["stream 1 (audio, flac)"]
    assert copy(path, tmp_path / "out.mp4").dropped == []


@pytest.mark.parametrize(
    "first, audio, second",
    [
        (".mp4", "aac", ".mp4"),
        (".mp4", "aac", ".mkv"),
        (".mkv", "aac", ".mov"),
        (".mov", "pcm_s16le", ".avi"),
        (".mkv", "libopus", ".webm"),
        (".mkv", "libopus", ".mp4"),
    ],
)
def test_audio_is_copied_byte_for_byte(tmp_path, first, audio, second):
    path = film(tmp_path / f"in{first}", audio=audio)
    writer = copy(path, tmp_path / f"out{second}")
    assert writer.dropped == []
    before, after = packets(path, "audio"), packets(tmp_path / f"out{second}", "audio")
    assert b"".join(data for data, _ in after) == b"".join(data for data, _ in before)
    if audio != "pcm_s16le":  # which has no packets of its own
        # Matroska cannot begin before 0 and moves all streams, if the sound does.
        moved = times(tmp_path / f"out{second}")[0] - times(path)[0]
        late = [float(b - a - moved) for (_, a), (_, b) in zip(before, after, strict=True)]
        np.testing.assert_allclose(late, 0, atol=0.0011)  # Matroska counts milliseconds
    if second != ".avi":
        with av.open(str(tmp_path / f"out{second}")) as container:
            assert container.streams.audio[0].language == "fra"
    with av.open(str(tmp_path / f"out{second}")) as container:
        assert sum(f.samples for f in container.decode(audio=0)) == pytest.approx(48000, abs=2100)


def test_what_the_container_cannot_hold_is_reported(tmp_path, caplog):
    path = film(tmp_path / "in.mp4")
    with caplog.at_level(logging.WARNING):
        writer = copy(path, tmp_path / "out.webm")
    assert writer.dropped == ["stream 1 (audio, aac)"]
    assert ".webm does not keep stream 1 (audio, aac)" in caplog.text
    assert open_frames(tmp_path / "out.webm").length == 25


def test_chapters_tags_and_attachments(tmp_path):
    path = film(tmp_path / "in.mkv", attachment=True, chapters=True)
    writer = copy(path, tmp_path / "out.mkv")
    assert writer.dropped == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["title"] == "A film"
        assert [c["metadata"]["title"] for c in container.chapters()] == ["Part 0", "Part 1"]
        assert [c["start"] * c["time_base"] for c in container.chapters()] == [0, Fraction(2, 5)]
        fonts = [s for s in container.streams if s.type == "attachment"]
        assert [(s.name, s.data) for s in fonts] == [("font.ttf", b"letters")]
    writer = copy(path, tmp_path / "out.mp4")
    assert [what.split()[2] for what in writer.dropped] == ["(attachment,"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "A film"
        assert [c["metadata"]["title"] for c in container.chapters()] == ["Part 0", "Part 1"]


def test_subtitles(tmp_path):
    (tmp_path / "in.srt").write_text(
        "1\n00:00:00,100 --> 00:00:00,400\nHello\n\n2\n00:00:00,600 --> 00:00:00,900\nWorld\n"
    )
    film(tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as picture, av.open(str(tmp_path / "in.srt")) as text:
        with av.open(str(tmp_path / "in.mkv"), "w") as out:
            inputs = [picture.streams.video[0], text.streams.subtitles[0]]
            outputs = [out.add_stream_from_template(stream) for stream in inputs]
            for container, stream, target in zip([picture, text], inputs, outputs, strict=True):
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.stream = target
                        out.mux(packet)
    assert copy(tmp_path / "in.mkv", tmp_path / "out.mkv").dropped == []
    expected = packets(tmp_path / "in.mkv", "subtitle")
    assert [data for data, _ in expected] == [b"Hello", b"World"]
    assert packets(tmp_path / "out.mkv", "subtitle") == expected
    dropped = copy(tmp_path / "in.mkv", tmp_path / "out.mp4").dropped
    assert dropped == ["stream 1 (subtitle, srt)"]


def test_sound_ends_with_the_picture_if_that_is_cut(tmp_path):
    path = film(tmp_path / "in.mp4")
    copy(path, tmp_path / "out.mp4", count=10)
    assert len(times(tmp_path / "out.mp4")) == 10
    end = packets(tmp_path / "out.mp4", "audio")[-1][1]
    assert 0.3 < end < 0.4


# --- files that are no videos


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.mkv", "a"])
@pytest.mark.parametrize("content", [b"", b"just some text\n" * 50, bytes(range(256)) * 9])
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} (is not a video|has no picture)"):
        open_frames(tmp_path / name)


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        add_sound(out, "aac")()
    with pytest.raises(UserError, match="has no picture, only audio"):
        open_frames(tmp_path / "a.mp4")


# --- videos that are not whole


def cut(path, target, fraction):
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def test_mp4_without_its_index(tmp_path):
    path = h264(tmp_path / "in.mp4", smooth(30))
    with pytest.raises(UserError, match="damaged or unfinished video .*index"):
        open_frames(cut(path, tmp_path / "cut.mp4", 0.7))


@pytest.mark.parametrize(
    "suffix, container_options",
    [(".mp4", {"movflags": "faststart"}), (".mkv", {}), (".avi", {}), (".ts", {}), (".flv", {})],
)
def test_truncated_video_names_the_frames_it_has(tmp_path, suffix, container_options):
    path = h264(
        tmp_path / f"in{suffix}",
        noise(30, height=48, width=64),
        container_options=container_options,
    )
    whole = open_frames(path)
    assert whole.length == len(list(whole)) == 30
    broken = cut(path, tmp_path / f"cut{suffix}", 0.6)
    with pytest.raises(UserError, match=r"cut short: about 1\d frames can be read.*skip") as error:
        open_frames(broken)
    announced = int(str(error.value).split("about ")[1].split()[0])
    some = open_frames(broken, damaged="skip")
    frames = some.read_all()
    assert announced - 1 <= len(frames) <= announced == some.length
    np.testing.assert_array_equal(frames[:9], whole.read_all()[:9])
    copy_of_some = copy_skipping(broken, tmp_path / "out.mp4")
    assert copy_of_some == len(frames)


def copy_skipping(source, target):
    with open_frames(source, damaged="skip") as reader:
        with open_writer(
            target, fps=reader.fps, height=reader.height, width=reader.width, source=reader
        ) as writer:
            for frame in reader:
                writer.write(frame)
    return len(times(target))


def test_damage_in_the_middle(tmp_path):
    options = {"qp": "20", "bf": "0", "g": "5"}
    frames = smooth(30, height=96, width=128)
    path = make(
        tmp_path / "in.mp4", frames, codec="libx264", pix_fmt="yuv420p", rate=25, options=options
    )
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at, size = places[12]
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    assert missing_bytes(path) == 0
    source = open_frames(path)
    with pytest.raises(UserError, match=r"damaged: 1[0-2] frames could be read.*skip"):
        source.read_all()
    with pytest.raises(UserError, match="damaged"):
        copy(path, tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == ["in.mp4"]

    count = copy_skipping(path, tmp_path / "out.mp4")
    assert 20 < count < 30
    # What is left keeps its time: the last frame is the 30th.
    assert times(tmp_path / "out.mp4")[-1] == Fraction(29, 25)
    assert times(tmp_path / "out.mp4")[:10] == [Fraction(k, 25) for k in range(10)]


def test_change_of_size_is_refused(tmp_path):
    options = {"codec": "mpeg2video", "pix_fmt": "yuv420p", "rate": 25}
    make(tmp_path / "1.mpg", smooth(5), **options)
    make(tmp_path / "2.mpg", smooth(5, height=64, width=80), **options)
    both = (tmp_path / "1.mpg").read_bytes()[:-4] + (tmp_path / "2.mpg").read_bytes()
    (tmp_path / "a.mpg").write_bytes(both)
    with pytest.raises(UserError, match="changes its size from 64x48 to 80x64 at frame"):
        open_frames(tmp_path / "a.mpg").read_all()


def test_warnings_about_what_needs_care(tmp_path, caplog):
    hdr = {"pix_fmt": "yuv420p10le", "color_trc": 16, "colorspace": 9, "color_primaries": 9}
    path = make(tmp_path / "hdr.mkv", smooth(2), **hdr)
    assert open_frames(path).bits == 16
    assert "HDR" in caplog.text
    caplog.clear()
    clear = np.concatenate([smooth(2), np.full((2, 48, 64, 1), 7, np.uint8)], -1)
    path = make(tmp_path / "alpha.mkv", clear, pix_fmt="bgra", rgb="rgba")
    np.testing.assert_array_equal(open_frames(path).read_all(), smooth(2))
    assert "alpha" in caplog.text
