"""Video files that are cut short, damaged or no videos at all."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.films import (
    add_sound,
    copy,
    h264,
    make,
    noise,
    smooth,
    times,
)

from rvrt_jax.errors import UserError
from rvrt_jax.media.containers import missing_bytes
from rvrt_jax.media.frames import open_frames, open_writer

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
    with pytest.raises(
        UserError, match=r"cut short or broken at its end: about 1\d frames can be read.*skip"
    ) as error:
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


def test_a_frame_that_decodes_with_damage_is_noticed(tmp_path):
    options = {"qp": "20", "bf": "0"}
    frames = smooth(20, height=96, width=128)
    path = make(tmp_path / "in.mp4", frames, codec="libx264", pix_fmt="yuv420p", options=options)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    at, size = places[12]
    data[at + size // 2 : at + size] = b"\x55" * (size - size // 2)
    path.write_bytes(data)
    with av.open(str(path)) as container:  # FFmpeg makes something up, and says so in a flag
        assert [f.is_corrupt for f in container.decode(video=0)].count(True) == 1
    with pytest.raises(UserError, match="damaged: 1[0-2] frames could be read"):
        open_frames(path).read_all()
    assert len(list(open_frames(path, damaged="skip"))) == 19


@pytest.mark.parametrize("threads", ["1", "2"])  # each codes a slice, whose end tells of damage
def test_pieces_of_frames_are_left_out(tmp_path, threads):
    options = {"codec": "mjpeg", "pix_fmt": "yuvj444p", "options": {"threads": threads}}
    path = make(tmp_path / "in.avi", noise(6), rate=25, **options)
    whole = open_frames(path).read_all()
    rest = open_frames(cut(path, tmp_path / "cut.avi", 0.6), damaged="skip").read_all()
    np.testing.assert_array_equal(rest, whole[: len(rest)])
    assert 0 < len(rest) < 6


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
