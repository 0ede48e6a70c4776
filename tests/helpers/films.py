"""Makes small video files, passes them through the code under test, and looks into the results."""

from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import VideoFrame

from rvrt_jax.media.frames import open_frames, open_writer

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
    durations=None,
    time_base=None,
    rotation=None,
    options=None,
    container=None,
    container_options=None,
    **context,
):
    """Encodes frames as they are; `context` are attributes of the codec context."""
    with av.open(
        str(path), "w", format=container, container_options=container_options or {}
    ) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = np.asarray(frames[0]).shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if durations is not None:
            stream.codec_context.flags |= Flags.frame_duration
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for k, frame in enumerate(frames):
            picture = VideoFrame.from_ndarray(frame, format=rgb)
            if pix_fmt != rgb:
                picture = picture.reformat(format=pix_fmt)
            picture.pts = k if stamps is None else stamps[k]
            picture.duration = 0 if durations is None else durations[k]
            picture.time_base = time_base or 1 / Fraction(rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def h264(path, frames, **options):
    """Encodes frames with an even size as almost lossless H.264 with B-frames."""
    return make(path, frames, codec="libx264", pix_fmt="yuv444p", options={"qp": "1"}, **options)


def copy(
    source,
    target,
    *,
    transform=lambda frame: frame,
    count=None,
    scale=1,
    deinterlace=False,
    **options,
):
    """Passes a clip through reader and writer; returns the writer."""
    with open_frames(source, deinterlace=deinterlace) as reader:
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


def add_sound(out, codec):
    """Adds an audio stream of about a second; returns the function that writes it."""
    stream = out.add_stream(codec, rate=48000, layout="mono")
    stream.metadata["language"] = "fra"

    def write_sound():
        tone = np.sin(np.arange(48000) / 20).astype(np.float32)[None]
        kind = {"aac": "fltp", "ac3": "fltp", "libopus": "flt"}.get(codec, "s16")
        tone = tone if kind != "s16" else np.int16(tone * 9999)
        size = 960
        for start in range(0, 48000, size):
            frame = av.AudioFrame.from_ndarray(
                tone[:, start : start + size], format=kind, layout="mono"
            )
            frame.rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    return write_sound


def film(
    path,
    *,
    audio="aac",
    count=25,
    attachment=False,
    chapters=False,
    codec="libx264",
    pix_fmt="yuv444p",
    options=None,
    container_options=None,
):
    """Makes a film of `count` frames at 25 a second with a second of sound and the like."""
    frames = smooth(count)
    with av.open(str(path), "w", container_options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=25, options=options or {"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
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
            picture = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        write_sound()
    return path
