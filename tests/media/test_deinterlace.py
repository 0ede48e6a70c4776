"""Interlaced films: found by their frames, and made whole pictures."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.films import copy, make, times

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames

COUNT = 12
INTERLACED = {
    "libx264": {"qp": "8", "x264-params": "tff=1"},
    "mpeg2video": {"flags": "+ilme+ildct", "qmin": "1", "qmax": "2", "bf": "2"},
}


def moments():
    """Returns moving waves at twice the rate, [2 t, h, w, 3]."""
    t, y, x = np.ogrid[: 2 * COUNT, :96, :128]
    waves = 127 + 60 * np.sin((x - 3 * t) / 6) + 40 * np.sin(y / 5)
    return np.rint(waves).astype(np.uint8)[..., None].repeat(3, -1)


def combed():
    """Returns frames whose even lines are a moment earlier than the odd ones."""
    both = moments()
    frames = both[::2].copy()
    frames[:, 1::2] = both[1::2, 1::2]
    return frames


@pytest.fixture(params=INTERLACED)
def path(request, tmp_path):
    options = {"codec": request.param, "options": INTERLACED[request.param]}
    return make(tmp_path / "in.mkv", combed(), pix_fmt="yuv420p", rate=25, **options)


def test_interlaced_films_are_known(path, caplog):
    open_frames(path)
    assert "is interlaced" in caplog.text and "--deinterlace" in caplog.text


def test_frames_become_whole_pictures(path, caplog):
    source = open_frames(path, deinterlace=True)
    assert "is interlaced" not in caplog.text
    frames = source.read_all().astype(int)
    assert len(frames) == source.length == source.decoded == COUNT
    second = moments()[1::2]  # each picture is the later of its frame's two moments
    assert np.abs(combed() - second.astype(int)).mean() > 8
    assert np.abs(frames - second).mean() < 2
    np.testing.assert_array_equal(list(source.read_range(3, 5)), frames[3:5])


def test_times_stay(path, tmp_path):
    copy(path, tmp_path / "out.mp4", deinterlace=True)
    assert times(tmp_path / "out.mp4") == [Fraction(k, 25) for k in range(COUNT)]


def test_whole_frames_stay_as_they_are(tmp_path):
    path = make(tmp_path / "in.mkv", moments()[:5], rate=25)
    np.testing.assert_array_equal(open_frames(path, deinterlace=True).read_all(), moments()[:5])


def test_interlacing_is_found_behind_the_first_frame(tmp_path, caplog):
    """In a telecined film two frames of five are interlaced."""
    options = {"codec": "mpeg2video", "pix_fmt": "yuv420p", "rate": 25}
    whole = make(tmp_path / "1.mpg", moments()[:2], **options)
    woven = make(tmp_path / "2.mpg", combed(), **options, options=INTERLACED["mpeg2video"])
    both = whole.read_bytes()[:-4] + woven.read_bytes()
    (tmp_path / "in.mpg").write_bytes(both)
    open_frames(tmp_path / "in.mpg")
    assert "is interlaced" in caplog.text


def test_images_cannot_be_deinterlaced(tmp_path):
    copy(make(tmp_path / "in.mkv", moments()[:1], rate=25), tmp_path / "out")
    with pytest.raises(UserError, match="images are not interlaced"):
        open_frames(tmp_path / "out", deinterlace=True)
