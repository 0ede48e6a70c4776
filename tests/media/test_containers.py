"""Videos in unusual containers, under wrong names and under none; files that are no videos."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
from helpers.films import copy, make, smooth, times
from PIL import Image

from rvrt_jax.media.frames import is_video, open_frames

# Suffix, FFmpeg's name of the container, codec.
CONTAINERS = [
    ("rm", "rm", "rv10"),
    ("swf", "swf", "flv1"),
    ("f4v", "f4v", "libx264"),
    ("ogv", "ogv", "libvpx"),
    ("3g2", "3g2", "mpeg4"),
    ("m1v", "mpeg1video", "mpeg1video"),
    ("m2v", "mpeg2video", "mpeg2video"),
    ("m4v", "m4v", "mpeg4"),
    ("m2ts", "mpegts", "mpeg2video"),
    ("264", "h264", "libx264"),
    ("hevc", "hevc", "libx265"),
    ("obu", "obu", "libsvtav1"),
    ("ivf", "ivf", "libvpx-vp9"),
    ("mxf", "mxf", "mpeg2video"),
    ("nut", "nut", "ffv1"),
    ("wtv", "wtv", "mpeg2video"),
    ("y4m", "yuv4mpegpipe", "wrapped_avframe"),
    ("vob", "vob", "mpeg2video"),
    ("wmv", "asf", "wmv2"),
]


@pytest.mark.parametrize(("suffix", "container", "codec"), CONTAINERS)
def test_unusual_containers_are_opened_by_content(tmp_path, suffix, container, codec):
    path = make(
        tmp_path / f"film.{suffix}",
        smooth(12),
        codec=codec,
        pix_fmt="yuv420p",
        rate=25,
        container=container,
        options={"x265-params": "log-level=error"} if codec == "libx265" else {},
    )
    for name in (f"film.{suffix}", "film", "film.v2", "film.dat"):
        if name != path.name:
            shutil.copy(path, tmp_path / name)
        assert is_video(tmp_path / name)
        source = open_frames(tmp_path / name)
        frames = source.read_all()
        assert (len(frames), source.length, source.fps) == (12, 12, 25)
        assert np.abs(frames.astype(int) - smooth(12)).mean() < 16  # old codecs are coarse
    copy(path, tmp_path / "out.mkv")
    shown = [float(t) for t in times(tmp_path / "out.mkv")]
    assert np.diff(shown) == pytest.approx([0.04] * 11, abs=0.0011)


def test_a_wrong_suffix_is_no_hindrance(tmp_path):
    path = make(tmp_path / "in.mkv", smooth(3), rate=25)
    path.rename(tmp_path / "in.mp4")
    np.testing.assert_array_equal(open_frames(tmp_path / "in.mp4").read_all(), smooth(3))


OTHER_FILES = {
    "notes.txt": b"a line\n" * 50,
    "notes": b"a line\n" * 50,
    "data.json": json.dumps({"a": [1] * 100}).encode(),
    "film.srt": b"1\n00:00:00,100 --> 00:00:00,400\nHello\n\n",
    "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile.ts\n#EXT-X-ENDLIST\n",
    "list.txt": b"ffconcat version 1.0\nfile 'film.mkv'\n",
    "random": np.random.default_rng(0).bytes(200_000),
    "weights.pth": b"PK\3\4" + np.random.default_rng(1).bytes(10_000),
    "zeros.bin": bytes(100_000),
    "picture.svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'></svg>",
    "empty": b"",
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_no_videos(tmp_path, name):
    make(tmp_path / "film.mkv", smooth(2), rate=25)  # a list must not lead to it
    (tmp_path / name).write_bytes(OTHER_FILES[name])
    assert not is_video(tmp_path / name)


@pytest.mark.parametrize("kind", ["ICO", "PDF", "PPM", "JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_pictures_are_no_videos(tmp_path, kind):
    for name in (f"picture.{kind.lower()}", "picture"):
        Image.new("RGB", (32, 32)).save(tmp_path / name, kind)
        assert not is_video(tmp_path / name)


def test_names_of_files_that_do_not_exist_count_by_their_suffix(tmp_path):
    assert is_video("a/b.MP4") and is_video("x.webm") and is_video("old.mpg")
    assert not is_video("a/b.png") and not is_video("folder") and not is_video("a.mp4/b")
    (tmp_path / "folder.mp4").mkdir()
    assert not is_video(tmp_path / "folder.mp4")


def test_rates_are_exact(tmp_path):
    path = make(
        tmp_path / "film.dv",
        smooth(3, height=480, width=720),
        codec="dvvideo",
        pix_fmt="yuv411p",
        rate=Fraction(30000, 1001),
    )
    assert open_frames(path).fps == Fraction(30000, 1001)
