"""Parts of clips: frames, times, and what lies beside the picture, from the start of the part."""

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers import films

from rvrt_jax.errors import UserError
from rvrt_jax.media.excerpt import excerpt
from rvrt_jax.media.frames import open_frames, open_writer


def write(source, path):
    size = {"height": source.height, "width": source.width, "bits": source.bits}
    with open_writer(path, fps=None, source=source, codec="ffv1", **size) as writer:
        for frame in source:
            writer.write(frame)
    return path


@pytest.mark.parametrize(
    ("start", "frames", "expected"),
    [
        (None, 4, range(4)),
        ("0.4", None, range(10, 25)),
        ("0:00.41", 3, range(10, 13)),  # within a frame
        ("0:00:00.4", 3, range(10, 13)),
        ("10f", 100, range(10, 25)),
        ("24f", 1, range(24, 25)),
    ],
)
def test_frames_times_and_sound_of_a_part(tmp_path, start, frames, expected):
    film = films.film(tmp_path / "in.mkv", audio="flac", chapters=True)
    with open_frames(film) as whole:
        pictures = whole.read_all()
    with open_frames(film) as source:
        part = excerpt(source, start, frames)
        assert part.length == len(expected)
        output = write(part, tmp_path / "out.mkv")
    with open_frames(output) as result:
        np.testing.assert_array_equal(result.read_all(), pictures[list(expected)])
    shown = films.times(output)
    np.testing.assert_allclose(np.float64(shown), np.arange(len(expected)) / 25, atol=2e-3)
    begin, end = Fraction(expected[0], 25), Fraction(expected[-1] + 1, 25)
    sound = films.packets(film, "audio")
    kept = [(data, at - begin) for data, at in sound if begin <= at < end]
    got = films.packets(output, "audio")
    assert [data for data, _ in got] == [data for data, _ in kept]
    np.testing.assert_allclose([float(t) for _, t in got], [float(t) for _, t in kept], atol=2e-3)
    with av.open(str(output)) as container:
        titles = [chapter["metadata"]["title"] for chapter in container.chapters()]
    assert titles == [f"Part {k}" for k in range(2) if Fraction(2, 5) * (k + 1) > begin]


@pytest.mark.parametrize(("start", "frames"), [("0.2", None), ("0.2", 99), (None, 99)])
def test_sound_behind_the_last_frame_belongs_to_a_part_that_reaches_it(tmp_path, start, frames):
    film = films.film(tmp_path / "in.mkv", audio="flac", count=10)  # and a second of sound
    with open_frames(film) as source:
        output = write(excerpt(source, start, frames), tmp_path / "out.mkv")
    begin = float(start or 0)
    kept = [data for data, at in films.packets(film, "audio") if at >= begin]
    assert [data for data, _ in films.packets(output, "audio")] == kept
    with open_frames(film) as source:
        short = write(excerpt(source, start, 3), tmp_path / "short.mkv")
    assert films.packets(short, "audio")[-1][1] < 0.12


def test_a_part_of_images(tmp_path):
    frames = films.noise(7)
    size = {"height": films.HEIGHT, "width": films.WIDTH}
    with open_writer(tmp_path / "in", fps=None, **size) as writer:
        for frame in frames:
            writer.write(frame)
    with open_frames(tmp_path / "in", fps=5) as source:
        part = excerpt(source, "0.4", 3)
        np.testing.assert_array_equal(part.read_all(), frames[2:5])
        assert part.names == ["00000002.png", "00000003.png", "00000004.png"]
        assert len(part.files) == 3 and source.length == 7
        with pytest.raises(UserError, match="none is left from 7f on"):
            excerpt(source, "7f")
    with open_frames(tmp_path / "in") as source:
        np.testing.assert_array_equal(excerpt(source, "6f").read_all(), frames[6:])
        with pytest.raises(UserError, match="images have no frame rate"):
            excerpt(source, "0.4")


@pytest.mark.parametrize(
    ("start", "frames", "message"),
    [
        ("soon", None, "start is 'soon'; give seconds"),
        ("-1", None, "give seconds"),
        ("1.0", None, r"has 25 frames, 1\.00 s; none is left from 1\.0 on"),
        ("25f", None, "none is left"),
        (None, 0, "frames is 0"),
    ],
)
def test_mistakes_are_named(tmp_path, start, frames, message):
    with open_frames(films.film(tmp_path / "in.mp4")) as source:
        with pytest.raises(UserError, match=message):
            excerpt(source, start, frames)
