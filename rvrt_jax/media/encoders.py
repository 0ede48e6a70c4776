"""What the encoders can do, and the pixel format with which a film loses least."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import av.error
from av.video.format import VideoFormat, VideoFormatComponent

from rvrt_jax.errors import UserError


@dataclass(frozen=True)
class Encoder:
    """What an encoder can do."""

    suffixes: tuple[str, ...]  # of files that its video goes into
    formats: tuple[str, ...]  # pixel formats to choose from
    options: dict[str, str]
    max_crf: int | None  # None: it has no such setting
    # Writes the pixels' shape itself, so that it survives in containers where PyAV cannot set it
    # (all but MP4 and MOV).
    keeps_shape: bool = False
    odd_sizes: bool = False  # shares colours between pixels at odd sizes too
    full_range: bool = True  # can say that pixels use the full range
    smallest: tuple[int, int] = (1, 1)  # height, width: below the encoder is not safe
    hdr: tuple[str, str, str] | None = None  # see `side_data.Hdr.encoder_options`


_8_BITS = ("yuv420p", "yuv422p", "yuv444p")
_10_BITS = ("yuv420p10le", "yuv422p10le", "yuv444p10le")
_12_BITS = ("yuv420p12le", "yuv422p12le", "yuv444p12le")
_X265_RGB = ("gbrp", "gbrp10le", "gbrp12le")

ENCODERS = {
    "libx264": Encoder(
        (".mp4", ".mkv", ".mov", ".avi"),
        _8_BITS + _10_BITS,
        {"preset": "medium"},
        51,
        keeps_shape=True,
        hdr=("x264-params", "mastering-display", "cll"),
    ),
    "libx265": Encoder(
        (".mp4", ".mkv", ".mov"),
        _8_BITS + _10_BITS + _12_BITS + _X265_RGB,
        {"preset": "medium", "x265-params": "log-level=error"},
        51,
        keeps_shape=True,
        # Between 33 and 48 pixels x265 4.2 writes past its buffers and takes the process down.
        smallest=(1, 64),
        hdr=("x265-params", "master-display", "max-cll"),
    ),
    "libvpx-vp9": Encoder(
        (".webm", ".mkv", ".mp4"),
        (*_8_BITS, "gbrp"),
        {"b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"},
        63,
        odd_sizes=True,
    ),
    "libsvtav1": Encoder(
        (".webm", ".mkv", ".mp4"),
        ("yuv420p", "yuv420p10le"),
        {"preset": "5"},
        63,
        odd_sizes=True,
        smallest=(28, 28),  # SVT-AV1 4.1 waits for ever at 16x128 and 24x2000
        hdr=("svtav1-params", "mastering-display", "content-light"),
    ),
    "prores_ks": Encoder(
        (".mov", ".mkv"), ("yuv422p10le", "yuv444p10le"), {}, None, odd_sizes=True, full_range=False
    ),
    "ffv1": Encoder(
        (".mkv", ".avi"), ("bgr0", "gbrp16le"), {"level": "3", "slicecrc": "1"}, None
    ),
}  # fmt: skip
# The usual names.
ALIASES = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}
OUTPUT_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")


def choose_encoder(
    path: Path, *, codec: str | None, bits: int, crf: int, width: int = 0, hdr: bool = False
) -> str:
    """Returns the encoder for a file.

    codec: one of ALIASES or ENCODERS. None stands for H.264; for H.265 if hdr, whose metadata
    players look for there; in WebM for VP9 (8 bits) or AV1.
    Raises UserError for a suffix, codec, depth or crf that is unknown or does not fit the others.
    """
    suffix = path.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise UserError(
            f"{path}: cannot write {suffix} files. Use one of {' '.join(OUTPUT_SUFFIXES)}, or for "
            "a folder of PNG images a name without suffix (or with / at its end)."
        )
    name = ALIASES.get(codec, codec) if codec else _usual(suffix, bits, width, hdr)
    known = ENCODERS.get(name)
    if known is None:
        raise UserError(f"codec {codec!r} is unknown. Use one of {', '.join(ALIASES)}, ffv1.")
    if suffix not in known.suffixes:
        raise UserError(f"{path}: {name} video goes into {' '.join(known.suffixes)} files.")
    if bits > 8 and all(_layout(pixel_format).bits == 8 for pixel_format in known.formats):
        raise UserError(f"{name} cannot write {bits}-bit frames. Use av1 or hevc.")
    if known.max_crf is not None and not 0 <= crf <= known.max_crf:
        raise UserError(f"crf is {crf}; {name} takes 0 (best) to {known.max_crf}.")
    try:
        av.Codec(name, "w")
    except av.error.FFmpegError as error:
        raise UserError(
            f"this build of FFmpeg has no encoder {name}. Install the av wheel of PyPI, or use "
            f"one of {', '.join(ALIASES)}, ffv1."
        ) from error
    return name


def _usual(suffix: str, bits: int, width: int, hdr: bool) -> str:
    if suffix == ".webm":
        return "libvpx-vp9" if bits == 8 else "libsvtav1"
    hevc = ENCODERS["libx265"]
    return "libx265" if hdr and suffix in hevc.suffixes and width >= hevc.smallest[1] else "libx264"


def choose_format(
    name: str, *, size: tuple[int, int], bits: int, source: str | None, wanted: str | None
) -> tuple[str, list[str]]:
    """Returns the pixel format for an encoder, and what is lost with it, in words.

    size: (height, width). bits: of the frames, 8 or 16. source: pixel format of the film; without
    one 4:2:0 is taken, in 10 bits for 16. wanted: pixel format to take whatever is lost.
    Raises UserError if the encoder cannot write `wanted`, or not in this size.
    """
    known, formats = ENCODERS[name], ENCODERS[name].formats
    if wanted is not None:
        formats = tuple(format_.name for format_ in av.Codec(name, "w").video_formats or ())
        if wanted not in formats:
            raise UserError(f"{name} cannot write {wanted}. It writes {', '.join(formats)}.")
        formats = (wanted,)
    fitting = [format_ for format_ in formats if known.odd_sizes or _fits(format_, *size)]
    if not fitting:
        raise UserError(
            f"{name} cannot write {size[1]}x{size[0]} frames as {wanted}, which needs even sizes. "
            "Use a 4:4:4 format."
        )
    source_layout = _layout(source or "yuv420p")
    depth = 8 if bits == 8 else source_layout.bits if source_layout.bits > 8 else 10
    given = _Layout(source_layout.rgb, source_layout.shared, depth)
    chosen = min(fitting, key=lambda format_: _cost(given, _layout(format_)))
    lost = _lost(given, _layout(chosen))
    if source is None or not lost:
        return chosen, []
    return chosen, [f"all of {source}, which becomes {chosen} ({', '.join(lost)})"]


@dataclass(frozen=True)
class _Layout:
    rgb: bool
    shared: tuple[int, int]  # rows and columns of pixels that share a colour
    bits: int


def _layout(pixel_format: str) -> _Layout:
    known = VideoFormat(pixel_format, 16, 16)
    components = cast(Sequence[VideoFormatComponent], known.components)
    shared = 16 // known.chroma_height(), 16 // known.chroma_width()
    if len(components) < 3:  # grey, with or without opacity
        shared = (4, 4)
    return _Layout(known.is_rgb, shared, components[0].bits)


def _fits(pixel_format: str, height: int, width: int) -> bool:
    even = height % 2 == width % 2 == 0
    return even or _layout(pixel_format).shared == (1, 1)


def _cost(given: _Layout, chosen: _Layout) -> tuple[int, ...]:
    """Sorts by what is lost first, then by what is stored beyond the need."""
    rows, columns = (max(b // a, 1) for a, b in zip(given.shared, chosen.shared, strict=True))
    return (
        max(0, given.bits - chosen.bits),
        rows * columns,
        given.rgb and not chosen.rgb,
        chosen.bits,
        chosen.rgb,
        -chosen.shared[0] * chosen.shared[1],
    )


def _lost(given: _Layout, chosen: _Layout) -> list[str]:
    lost = []
    if chosen.bits < given.bits:
        lost.append(f"{chosen.bits} bits instead of {given.bits}")
    if any(b > a for a, b in zip(given.shared, chosen.shared, strict=True)):
        lost.append("less colour resolution")
    if given.rgb and not chosen.rgb:
        lost.append("not RGB")
    return lost
