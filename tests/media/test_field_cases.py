"""Films as people have them: late sound, several tracks, old files, strange names."""

import contextlib
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.films import copy, film, make, packets, smooth, times

from rvrt_jax.media.frames import open_frames, open_writer

# --- what lies beside the picture


def shifted(source, target, delays):
    """Copies the packets of a film, those of each kind of stream later by some seconds."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        targets = {s.index: out.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.dts is None:
                continue
            delay = round(delays.get(packet.stream.type, 0) / packet.time_base)
            packet.pts, packet.dts = packet.pts + delay, packet.dts + delay
            packet.stream = targets[packet.stream_index]
            out.mux(packet)
    return target


@pytest.mark.parametrize("second", [".mp4", ".mkv"])
@pytest.mark.parametrize("first", [".mp4", ".mkv"])
@pytest.mark.parametrize("late", ["audio", "video"])
def test_late_sound_and_late_picture_stay_late(tmp_path, late, first, second):
    whole = film(tmp_path / f"whole{first}", options={"qp": "1", "bf": "0"})
    path = shifted(whole, tmp_path / f"in{first}", {late: Fraction(1, 2)})
    before = times(path)[0] - packets(path, "audio")[0][1]
    assert abs(before) > 0.4
    copy(path, tmp_path / f"out{second}")
    after = times(tmp_path / f"out{second}")[0] - packets(tmp_path / f"out{second}", "audio")[0][1]
    assert float(after) == pytest.approx(float(before), abs=0.0011)


def with_tracks(path):
    """Makes an MP4 with two languages of sound and mov_text subtitles."""
    sounds = [film(path.with_name(f"{k}.mp4"), audio="aac") for k in range(2)]
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(av.open(str(path), "w"))
        files = [stack.enter_context(av.open(str(s))) for s in (sounds[0], *sounds)]
        wanted = [files[0].streams.video[0], *(file.streams.audio[0] for file in files[1:])]
        targets = [out.add_stream_from_template(stream) for stream in wanted]
        targets[1].metadata["language"], targets[2].metadata["language"] = "fra", "deu"
        subtitles = out.add_mux_stream("mov_text")
        subtitles.metadata["language"] = "eng"
        for stream, target in zip(wanted, targets, strict=True):
            for packet in stream.container.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    out.mux(packet)
        for k, text in enumerate((b"Hello", b"World")):
            packet = av.Packet(len(text).to_bytes(2, "big") + text)
            packet.pts = packet.dts = 100 + 400 * k
            packet.duration, packet.time_base = 300, Fraction(1, 1000)
            packet.stream = subtitles
            out.mux(packet)
    return path


def test_all_tracks_are_kept(tmp_path):
    path = with_tracks(tmp_path / "in.mp4")
    assert copy(path, tmp_path / "out.mp4").dropped == []
    with av.open(str(path)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        for container in (before, after):
            kinds = [(s.type, s.metadata.get("language")) for s in container.streams]
            assert kinds[1:] == [("audio", "fra"), ("audio", "deu"), ("subtitle", "eng")]
        sound = [
            [bytes(p) for p in container.demux(container.streams.audio[1]) if p.size]
            for container in (before, after)
        ]
    assert sound[0] == sound[1]
    texts = [packets(file, "subtitle") for file in (path, tmp_path / "out.mp4")]
    assert [d for d, _ in texts[0]] == [d for d, _ in texts[1]] and len(texts[0]) > 0


def test_sound_that_is_refused_with_its_first_packet_is_named(tmp_path):
    """MP4 does not take RealAudio's AC-3: found out before work starts, not at its end."""
    whole, path = film(tmp_path / "whole.mp4", audio="ac3"), tmp_path / "in.mkv"
    with av.open(str(whole)) as given, av.open(str(path), "w") as out:
        targets = {s.index: out.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.dts is None:
                continue
            data = bytearray(bytes(packet))
            if packet.stream.type == "audio":
                data[5] = 9 << 3  # version of the stream (bsid): the one of RealAudio
            other = av.Packet(bytes(data))
            other.is_keyframe = packet.is_keyframe
            other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
            other.stream = targets[packet.stream_index]
            out.mux(other)
    assert copy(path, tmp_path / "out.mp4").dropped == ["stream 1 (audio, ac3)"]
    assert copy(path, tmp_path / "out.mkv").dropped == []
    assert copy(whole, tmp_path / "sound.mp4").dropped == []


def test_closed_captions_are_named(tmp_path):
    """They hide in the picture's own stream; three bytes of them here."""
    path = make(tmp_path / "in.h264", smooth(3), codec="libx264", pix_fmt="yuv420p", rate=25)
    data = path.read_bytes()
    assert copy(path, tmp_path / "without.mp4").dropped == []
    payload = b"\xb5\x00\x31GA94\x03\x41\xff\xfc\x94\x2c\xff"  # ATSC A/53, part 4
    message = b"\x00\x00\x01\x06\x04" + bytes([len(payload)]) + payload + b"\x80"
    picture = data.index(b"\x00\x00\x01\x65")
    path.write_bytes(data[:picture] + message + data[picture:])
    assert copy(path, tmp_path / "with.mp4").dropped == ["closed captions"]


def test_subtitles_with_fonts_that_do_not_fit_are_named(tmp_path):
    script = tmp_path / "in.ass"
    script.write_text(
        "[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname\n"
        "Style: Default,letters\n[Events]\nFormat: Start, End, Style, Text\n"
        "Dialogue: 0:00:00.10,0:00:00.50,Default,Hello\n"
    )
    whole = film(tmp_path / "whole.mp4")
    with (
        av.open(str(whole)) as picture,
        av.open(str(script)) as text,
        av.open(str(tmp_path / "in.mkv"), "w") as out,
    ):
        inputs = [picture.streams.video[0], text.streams.subtitles[0]]
        targets = [out.add_stream_from_template(stream) for stream in inputs]
        out.add_attachment("letters.ttf", "application/x-truetype-font", b"letters")
        for stream, target in zip(inputs, targets, strict=True):
            for packet in stream.container.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    out.mux(packet)
    assert copy(tmp_path / "in.mkv", tmp_path / "out.mkv").dropped == []
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(tmp_path / "in.mkv", "subtitle")
    dropped = copy(tmp_path / "in.mkv", tmp_path / "out.mp4").dropped
    assert dropped[0] == "stream 1 (subtitle, ssa)" and "attachment" in dropped[1]


# --- time


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_high_rates_are_kept(tmp_path, suffix):
    rate = Fraction(120000, 1001)
    path = make(tmp_path / f"in{suffix}", smooth(9), codec="libx264", pix_fmt="yuv420p", rate=rate)
    copy(path, tmp_path / f"out{suffix}")
    assert open_frames(tmp_path / f"out{suffix}").fps == rate


def test_a_gap_of_seconds_stays(tmp_path):
    """As in a film that a camera stopped and went on."""
    stamps = [0, 40, 80, 5080, 5120, 5160]
    path = make(tmp_path / "in.mkv", smooth(6), rate=25, stamps=stamps, time_base=Fraction(1, 1000))
    copy(path, tmp_path / "out.mp4")
    assert [float(t) for t in times(tmp_path / "out.mp4")] == pytest.approx(
        [stamp / 1000 for stamp in stamps]
    )


def test_frames_that_an_avi_left_out_leave_gaps(tmp_path):
    """Recorders that fall behind write an empty packet: the frame before is shown for longer."""
    stamps = [0, 1, 2, 5, 6, 9]
    path = make(
        tmp_path / "in.avi",
        smooth(6),
        codec="mpeg4",
        pix_fmt="yuv420p",
        rate=25,
        stamps=stamps,
        time_base=Fraction(1, 25),
    )
    copy(path, tmp_path / "out.mkv")
    shown = [float(t) for t in times(tmp_path / "out.mkv")]
    assert shown == pytest.approx([stamp / 25 for stamp in stamps], abs=0.0011)


# --- old and odd streams


@pytest.mark.parametrize("tag", ["DIVX", "XVID", "DX50"])
def test_old_avi_files(tmp_path, tag):
    path = make(
        tmp_path / "in.avi",
        smooth(20),
        codec="mpeg4",
        pix_fmt="yuv420p",
        rate=25,
        codec_tag=tag,
        options={"bf": "2", "qmin": "1", "qmax": "2"},
    )
    source = open_frames(path)
    frames = source.read_all()
    assert (len(frames), source.fps) == (20, 25)
    copy(path, tmp_path / "out.mp4")
    shown = [float(t) for t in times(tmp_path / "out.mp4")]
    assert np.diff(shown) == pytest.approx([0.04] * 19)
    assert np.abs(frames.astype(int) - smooth(20)).mean() < 6


def test_invisible_frames_are_not_counted_as_shown(tmp_path):
    """VP8 may send a frame that only others are made of."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "arnr-strength": "3"}
    path = tmp_path / "in.webm"
    frames = smooth(40)
    make(path, frames, codec="libvpx", pix_fmt="yuv420p", rate=25, options=options)
    source = open_frames(path)
    assert len(list(source)) == source.decoded == 40
    copy(path, tmp_path / "out.mp4")
    shown = [float(t) for t in times(tmp_path / "out.mp4")]
    assert np.diff(shown) == pytest.approx([0.04] * 39)


def test_a_stream_that_starts_without_its_parameter_sets(tmp_path):
    """They come again later, and serve for the frames before too."""
    options = {"codec": "libx264", "pix_fmt": "yuv420p", "rate": 25, "options": {"g": "10"}}
    path = make(tmp_path / "in.h264", smooth(30), **options)
    whole, data = open_frames(path).read_all(), path.read_bytes()
    sets = [data.index(b"\0\0\1" + kind) for kind in (b"\x67", b"\x68")]
    assert max(sets) < 60  # sequence and picture parameters
    path.write_bytes(data[60:])
    np.testing.assert_array_equal(open_frames(path).read_all(), whole)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_pixel_shape_is_kept(tmp_path, suffix):
    path = make(
        tmp_path / f"in{suffix}",
        smooth(3),
        codec="libx264",
        pix_fmt="yuv420p",
        rate=25,
        sample_aspect_ratio=Fraction(16, 11),
    )
    assert open_frames(path).sample_aspect_ratio == Fraction(16, 11)
    copy(path, tmp_path / f"out{suffix}")
    assert open_frames(tmp_path / f"out{suffix}").sample_aspect_ratio == Fraction(16, 11)


# --- names

NAMES = ["图 é", "film:1", "-dash", "a'b\"c", "a%03d", "pipe:0", "http:x", "two  spaces", "[x]*?"]


@pytest.mark.parametrize("name", NAMES)
def test_strange_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    frames = smooth(2)
    video, folder = f"{name}.mkv", name
    size = {"height": 48, "width": 64}
    with open_writer(video, fps=25, codec="ffv1", **size) as writer:
        for frame in frames:
            writer.write(frame)
    source = open_frames(video)
    np.testing.assert_array_equal(source.read_all(), frames)
    with open_writer(
        folder, fps=None, source=source, names=[f"{name} 1.x", f"{name} 2.x"], **size
    ) as writer:
        for frame in source:
            writer.write(frame)
    assert sorted(os.listdir(folder)) == [f"{name} 1.png", f"{name} 2.png"]
    np.testing.assert_array_equal(open_frames(folder).read_all(), frames)
    np.testing.assert_array_equal(open_frames(f"{folder}/{name} 2.png").read_all(), frames[1:])


def test_numbers_without_zeros_in_front_count_as_numbers(tmp_path):
    names = [f"{k}.png" for k in (1, 2, 9, 10, 11, 99, 100)]
    frames = smooth(len(names))
    size = {"height": 48, "width": 64}
    with open_writer(tmp_path / "in", fps=None, names=names, **size) as writer:
        for frame in frames:
            writer.write(frame)
    source = open_frames(tmp_path / "in")
    assert source.names == names
    np.testing.assert_array_equal(source.read_all(), frames)
