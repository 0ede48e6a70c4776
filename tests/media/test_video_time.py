"""Time stamps of video files, and what lies beside the picture."""

import logging
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from helpers.films import (
    NTSC,
    copy,
    film,
    h264,
    make,
    packets,
    smooth,
    times,
)

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames, open_writer
from rvrt_jax.media.video_reader import VideoReader

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


def test_the_last_frame_stays_as_long_as_it_did(tmp_path):
    durations = [*np.diff(STAMPS), 45000]
    path = h264(
        tmp_path / "in.mkv",
        smooth(8),
        stamps=STAMPS,
        durations=[int(d) for d in durations],
        time_base=Fraction(1, 90000),
    )
    copy(path, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.duration / av.time_base == pytest.approx(85000 / 90000, abs=0.002)


def test_avi_is_written_in_the_order_of_showing(tmp_path):
    path = h264(tmp_path / "in.mp4", smooth(12), rate=25)
    copy(path, tmp_path / "out.avi")
    assert np.all(np.diff(times(tmp_path / "out.avi")) == Fraction(1, 25))


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


# --- what lies beside the picture


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
    # AVI takes it as well, and loses its times.
    assert copy(path, tmp_path / "out.avi").dropped == ["stream 1 (audio, flac)"]


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
            outputs[1].disposition = Disposition.forced
            for container, stream, target in zip([picture, text], inputs, outputs, strict=True):
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.stream = target
                        out.mux(packet)
    assert copy(tmp_path / "in.mkv", tmp_path / "out.mkv").dropped == []
    expected = packets(tmp_path / "in.mkv", "subtitle")
    assert [data for data, _ in expected] == [b"Hello", b"World"]
    assert packets(tmp_path / "out.mkv", "subtitle") == expected
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.subtitles[0].disposition & Disposition.forced
    dropped = copy(tmp_path / "in.mkv", tmp_path / "out.mp4").dropped
    assert dropped == ["stream 1 (subtitle, srt)"]


def test_sound_ends_with_the_picture_if_that_is_cut(tmp_path):
    path = film(tmp_path / "in.mp4")
    copy(path, tmp_path / "out.mp4", count=10)
    assert len(times(tmp_path / "out.mp4")) == 10
    end = packets(tmp_path / "out.mp4", "audio")[-1][1]
    assert 0.3 < end < 0.4
