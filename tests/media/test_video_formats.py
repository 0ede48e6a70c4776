"""What a film's pixels hold beyond 4:2:0 in 8 bits is kept, or named as lost."""

import struct

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from helpers.films import copy, make, smooth

from rvrt_jax.errors import UserError
from rvrt_jax.media.encoders import choose_format
from rvrt_jax.media.frames import open_frames, open_writer, to_float

SIZE = {"height": 96, "width": 128}


def film(path, pix_fmt, *, bits=8, **options):
    """Writes three frames without loss, but for what the pixel format costs."""
    frames = smooth(3, **SIZE)
    if bits > 8:
        frames = frames.astype(np.uint16) * 257
    rgb = "rgb24" if bits == 8 else "rgb48le"
    return make(path, frames, pix_fmt=pix_fmt, rgb=rgb, rate=25, **options)


def written(path):
    """Returns the first frame as it is stored."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


FORMATS = [
    ("yuv420p", 8),
    ("yuv422p", 8),
    ("yuv444p", 8),
    ("yuv420p10le", 10),
    ("yuv422p10le", 10),
    ("yuv444p10le", 10),
]


@pytest.mark.parametrize("codec", [None, "hevc"])
@pytest.mark.parametrize(("pix_fmt", "bits"), FORMATS)
def test_colour_resolution_and_depth_are_kept(tmp_path, pix_fmt, bits, codec):
    path = film(tmp_path / "in.mkv", pix_fmt, bits=bits)
    writer = copy(path, tmp_path / "out.mp4", codec=codec, crf=5)
    assert writer.dropped == []
    assert written(tmp_path / "out.mp4").format.name == pix_fmt
    before, after = open_frames(path).read_all(), open_frames(tmp_path / "out.mp4").read_all()
    error = np.abs(before.astype(float) - after).mean() / np.iinfo(before.dtype).max
    assert error < 0.01


def test_fine_colours_survive_in_444(tmp_path):
    """Columns of red and blue are one purple in 4:2:0."""
    columns = np.zeros((2, 96, 128, 3), np.uint8) + np.uint8([40, 40, 200])
    columns[:, :, ::2] = [200, 40, 40]
    path = make(tmp_path / "in.mkv", columns, pix_fmt="yuv444p", rate=25)
    copy(path, tmp_path / "out.mp4", crf=5)
    frame = open_frames(tmp_path / "out.mp4").read_all()[0].astype(int)
    assert np.abs(frame - columns[0]).mean() < 5
    copy(path, tmp_path / "coarse.mp4", crf=5, pix_fmt="yuv420p")
    coarse = open_frames(tmp_path / "coarse.mp4").read_all()[0].astype(int)
    assert np.abs(coarse - columns[0]).mean() > 20


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "target", "codec", "becomes", "lost"),
    [
        ("bgr0", 8, "out.mp4", None, "yuv444p", "not RGB"),
        ("bgr0", 8, "out.mp4", "hevc", "gbrp", None),
        ("bgr0", 8, "out.webm", "vp9", "gbrp", None),
        ("gbrp10le", 10, "out.mp4", "hevc", "gbrp10le", None),
        ("yuv444p12le", 12, "out.mp4", "hevc", "yuv444p12le", None),
        ("yuv444p12le", 12, "out.mp4", "h264", "yuv444p10le", "10 bits instead of 12"),
        ("yuv444p", 8, "out.webm", "vp9", "yuv444p", None),
        ("yuv444p", 8, "out.mp4", "av1", "yuv420p", "less colour resolution"),
        ("yuv422p10le", 10, "out.webm", None, "yuv420p10le", "less colour resolution"),
        ("yuv422p10le", 10, "out.mov", "prores", "yuv422p10le", None),
        # Written in 10 bits, but 4:4:4 ProRes is always decoded to 12.
        ("yuv444p10le", 10, "out.mov", "prores", "yuv444p12le", None),
        ("yuv420p", 8, "out.mov", "prores", "yuv422p10le", None),
        ("yuv420p", 8, "out.mkv", "ffv1", "bgr0", None),
        ("yuv422p10le", 10, "out.mkv", "ffv1", "gbrp16le", None),
        ("yuv411p", 8, "out.mp4", None, "yuv422p", None),
        ("yuv440p", 8, "out.mp4", None, "yuv444p", None),
        ("gray", 8, "out.mp4", None, "yuv420p", None),
    ],
)
def test_what_an_encoder_cannot_hold_is_said(
    tmp_path, caplog, pix_fmt, bits, target, codec, becomes, lost
):
    path = film(tmp_path / "in.mkv", pix_fmt, bits=bits)
    assert written(path).format.name == pix_fmt
    writer = copy(path, tmp_path / target, codec=codec, crf=5)
    stored = written(tmp_path / target)
    assert stored.format.name == becomes
    if lost is None:
        assert writer.dropped == []
    else:
        assert writer.dropped == [f"all of {pix_fmt}, which becomes {becomes} ({lost})"]
        assert f"does not keep all of {pix_fmt}" in caplog.text
    before, after = (to_float(open_frames(p).read_all()) for p in (path, tmp_path / target))
    assert np.abs(before - after).mean() < 0.015


def test_the_pixel_format_can_be_chosen(tmp_path):
    path = film(tmp_path / "in.mkv", "yuv444p")
    writer = copy(path, tmp_path / "out.mp4", pix_fmt="yuv420p")
    assert written(tmp_path / "out.mp4").format.name == "yuv420p"
    assert writer.dropped == ["all of yuv444p, which becomes yuv420p (less colour resolution)"]
    with pytest.raises(UserError, match="libx264 cannot write bgra. It writes yuv420p, "):
        copy(path, tmp_path / "no.mp4", pix_fmt="bgra")
    with pytest.raises(UserError, match="libx264 cannot write 65x96 frames as yuv420p"):
        with open_writer(tmp_path / "no.mp4", fps=25, height=96, width=65, pix_fmt="yuv420p"):
            pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mkv", "out.mp4"]


def test_images_become_what_every_player_shows():
    """In 4:2:0, or 4:4:4 where that needs even sizes."""
    for bits, size, expected in (
        (8, (96, 128), "yuv420p"),
        (16, (96, 128), "yuv420p10le"),
        (8, (95, 128), "yuv444p"),
        (16, (96, 127), "yuv444p10le"),
    ):
        chosen = choose_format("libx264", size=size, bits=bits, source=None, wanted=None)
        assert chosen == (expected, [])


@pytest.mark.parametrize(
    ("codec", "target", "name"),
    [
        ("h264", "a.mp4", "h264"),
        ("hevc", "a.mkv", "hevc"),
        ("av1", "a.mp4", "av1"),
        ("vp9", "a.webm", "vp9"),
        ("prores", "a.mov", "prores"),
        ("ffv1", "a.mkv", "ffv1"),
    ],
)
def test_codecs_go_by_their_usual_names(tmp_path, codec, target, name):
    with open_writer(tmp_path / target, fps=25, codec=codec, **SIZE) as writer:
        writer.write(smooth(1, **SIZE)[0])
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].codec.canonical_name == name


# --- HDR

PQ = {"color_trc": 16, "colorspace": 9, "color_primaries": 9}
MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


def hdr_film(path, *, metadata=f"master-display={MASTERING}:max-cll=1000,400", tags=PQ):
    options = {"x265-params": f"log-level=error:{metadata}"}
    return film(path, "yuv420p10le", bits=10, codec="libx265", options=options, **tags)


def screen(path):
    """Returns ten numbers about the screen (R, G, B, white, luminance) and two about the light."""
    data = written(path).side_data
    numbers = struct.unpack("=22i", bytes(data.get(Type.MASTERING_DISPLAY_METADATA)))
    light = struct.unpack_from("=2I", bytes(data.get(Type.CONTENT_LIGHT_LEVEL)))
    assert numbers[20] == numbers[21] == 1
    return [a / b for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)], light


@pytest.mark.parametrize(
    ("target", "codec", "name", "error"),
    [
        ("out.mp4", None, "hevc", 0),
        ("out.mkv", None, "hevc", 0),
        ("out.mp4", "h264", "h264", 0),
        ("out.webm", None, "av1", 2**-13),  # in 16 bits, and luminance in 14 below the point
        ("out.mp4", "av1", "av1", 2**-13),
    ],
)
def test_hdr10_is_kept(tmp_path, target, codec, name, error):
    path = hdr_film(tmp_path / "in.mkv")
    expected = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000]
    assert screen(path) == (expected, (1000, 400))
    writer = copy(path, tmp_path / target, codec=codec)
    assert writer.dropped == []
    values, light = screen(tmp_path / target)
    np.testing.assert_allclose(values, expected, rtol=0, atol=error)
    assert light == (1000, 400)
    frame = written(tmp_path / target)
    assert frame.format.name == "yuv420p10le"
    assert (frame.color_trc, frame.colorspace, frame.color_primaries) == (16, 9, 9)
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].codec.canonical_name == name


def test_hdr_without_metadata_keeps_its_tags(tmp_path):
    hlg = {**PQ, "color_trc": 18}
    copy(hdr_film(tmp_path / "in.mkv", metadata="", tags=hlg), tmp_path / "out.mp4")
    frame = written(tmp_path / "out.mp4")
    assert frame.color_trc == 18
    assert frame.side_data.get(Type.MASTERING_DISPLAY_METADATA) is None
    levels = hdr_film(tmp_path / "levels.mkv", metadata="max-cll=700,0")
    copy(levels, tmp_path / "levels.mp4")
    light = written(tmp_path / "levels.mp4").side_data.get(Type.CONTENT_LIGHT_LEVEL)
    assert struct.unpack_from("=2I", bytes(light)) == (700, 0)


def test_hdr10_that_cannot_be_kept_is_said(tmp_path):
    path = hdr_film(tmp_path / "in.mkv")
    assert copy(path, tmp_path / "out.mov", codec="prores").dropped == [
        "HDR10 metadata (prores_ks)"
    ]


@pytest.mark.parametrize("full", [False, True])
def test_prores_keeps_colours(tmp_path, full):
    """It takes tags from frames, not from the stream, and knows the limited range alone."""
    tags = {**PQ, "color_range": 2 if full else 1}
    path = film(tmp_path / "in.mkv", "yuv444p10le", bits=10, codec="ffv1", **tags)
    copy(path, tmp_path / "out.mov", codec="prores")
    frame = written(tmp_path / "out.mov")
    assert (frame.color_trc, frame.colorspace, frame.color_primaries) == (16, 9, 9)
    before, after = open_frames(path).read_all(), open_frames(tmp_path / "out.mov").read_all()
    assert np.abs(before.astype(float) - after).mean() / 65535 < 0.01
