"""Films joined byte by byte, clocks that run over, and sound that is longer than the picture."""

from fractions import Fraction

import numpy as np
import pytest
from helpers.films import copy, film, packets, times

from rvrt_jax.media.frames import open_frames
from rvrt_jax.media.joins import PartClock, find_parts

MPEG2 = {"codec": "mpeg2video", "pix_fmt": "yuv420p", "audio": "mp2", "options": {"bf": "2"}}


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("suffix", [".ts", ".vob"])
def test_joined_films_are_played_one_behind_the_other(tmp_path, caplog, suffix, target):
    part = film(tmp_path / f"part{suffix}", **MPEG2)
    path = tmp_path / f"in{suffix}"
    path.write_bytes(3 * part.read_bytes())
    writer = copy(path, tmp_path / target, crf=5)
    assert "clock starts again 2 times" in caplog.text
    assert (writer.count, writer.dropped) == (75, [])

    shown = times(tmp_path / target)
    assert np.diff([float(t) for t in shown]) == pytest.approx(0.04, abs=0.0011)
    frames = open_frames(tmp_path / target).read_all().astype(int)
    for again in (frames[25:50], frames[50:]):
        assert np.abs(again - frames[:25]).mean() < 3

    sound, whole = packets(tmp_path / target, "audio"), packets(path, "audio")
    assert b"".join(data for data, _ in sound) == b"".join(data for data, _ in whole)
    assert np.all(np.diff([float(t) for _, t in sound]) > 0)
    # In every part the sound lies as far from the picture as in the first.
    count = len(packets(part, "audio"))
    for k in (1, 2):
        late = sound[k * count + count // 2][1] - sound[count // 2][1]
        assert float(late) == pytest.approx(k * 1.0, abs=0.0011)


def test_a_clock_that_runs_over_goes_on(tmp_path):
    """33 bits of 1/90000 s, after 26.5 hours; the picture begins half a second before."""
    start = {"output_ts_offset": f"{2**33 / 90000 - 0.5:.3f}"}
    path = film(tmp_path / "in.ts", **MPEG2, container_options=start)
    raw = [float(t) for t in times(path)]
    assert max(raw) - min(raw) < 2  # FFmpeg puts it right, if it is the only thing that happens
    assert len(open_frames(path).offsets) == 2
    copy(path, tmp_path / "out.mp4")
    shown = [float(t) for t in times(tmp_path / "out.mp4")]
    assert np.diff(shown) == pytest.approx(0.04, abs=0.0011)
    before = times(path)[0] - packets(path, "audio")[0][1]
    after = times(tmp_path / "out.mp4")[0] - packets(tmp_path / "out.mp4", "audio")[0][1]
    assert float(after) == pytest.approx(float(before), abs=0.0011)


def test_a_gap_stays_a_gap(tmp_path):
    part = film(tmp_path / "1.ts", **MPEG2)
    later = film(tmp_path / "2.ts", **MPEG2, container_options={"output_ts_offset": "1000"})
    path = tmp_path / "in.ts"
    path.write_bytes(part.read_bytes() + later.read_bytes())
    assert open_frames(path).offsets == (0,)
    copy(path, tmp_path / "out.mkv")
    gaps = np.diff([float(t) for t in times(tmp_path / "out.mkv")])
    assert gaps[24] == pytest.approx(999.0, abs=0.05)


def test_parts_are_found_by_their_times():
    def found(dts, durations=None):
        part, offsets = find_parts(np.array(dts), np.array(durations or [10] * len(dts)))
        return part.tolist(), offsets

    assert found([5, 15, 25]) == ([0, 0, 0], [0])
    assert found([5, 15, 25, 5, 15, 0, 10]) == ([0, 0, 0, 1, 1, 2, 2], [0, 30, 55])
    assert found([5, 15, 25, 5, 15], [0] * 5) == ([0, 0, 0, 1, 1], [0, 30])  # no durations
    assert found([5, 15, 25, 7, 35, 45]) == ([0] * 6, [0])  # a single wrong time
    assert found([5, 15, 25, 7]) == ([0] * 4, [0])
    assert found([5, 5, 15, 15]) == ([0] * 4, [0])
    assert found([]) == ([], [0])


def test_the_part_of_a_packet_is_the_one_that_continues_best():
    """Sound and picture do not change parts at the same place of the file."""
    offsets = [Fraction(0), Fraction(10), Fraction(25)]
    clock = PartClock(offsets, Fraction(1, 100))
    assert clock.offset(900, 50, near=0) == 0
    assert clock.offset(950, 50, near=1) == 0  # still the first part's
    assert clock.offset(20, 50, near=1) == 1000
    assert clock.offset(60, 50, near=0) == 1000  # the picture lags behind
    assert clock.offset(110, 50, near=1) == 1000
    assert clock.part == 1 and clock.offset_in(2) == 2500


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_sound_longer_than_the_picture_is_kept_whole(tmp_path, target):
    path = film(tmp_path / "in.mkv", count=5)
    copy(path, tmp_path / target)
    sound = packets(tmp_path / target, "audio")
    assert [data for data, _ in sound] == [data for data, _ in packets(path, "audio")]
    assert sound[-1][1] > 0.9 and times(tmp_path / target)[-1] < 0.2


def test_sound_is_kept_where_fewer_frames_come_than_packets_say(tmp_path):
    """As in a recording that begins in the middle: what comes before a key frame is not shown."""
    options = {"g": "8", "bf": "2", "qp": "10"}
    whole = film(tmp_path / "whole.ts", count=20, pix_fmt="yuv420p", options=options)
    data = whole.read_bytes()
    path = tmp_path / "in.ts"
    for start in range(0, len(data), 188):  # a packet at a time
        path.write_bytes(data[start:])
        source = open_frames(path)
        if len(list(source)) < 20 - 3:
            break
    assert source.length > source.decoded
    copy(path, tmp_path / "out.mkv")
    before, after = packets(path, "audio"), packets(tmp_path / "out.mkv", "audio")
    assert len(after) == len(before) > 5 and after[-1][1] > times(tmp_path / "out.mkv")[-1]
