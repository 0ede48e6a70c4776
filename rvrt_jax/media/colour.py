"""Colour tags of video, and conversion between Y'CbCr and RGB.

Numbers are those of ITU-T H.273.
"""

from dataclasses import dataclass

from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, Interpolation

# Numbers of the matrix tag and the names that PyAV gives them.
RGB, BT709, UNSPECIFIED, SMPTE170M = 0, 1, 2, 6
MATRICES = {
    BT709: "ITU709",
    4: "FCC",
    5: "ITU601",
    SMPTE170M: "SMPTE170M",
    7: "SMPTE240M",
    9: "BT2020",
}
# Without these flags the conversion is wrong by up to 3 of 255 levels even in flat areas.
ACCURATE = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
PIXEL_FORMATS = {8: "rgb24", 16: "rgb48le"}  # of frames in memory, by bits
HDR_CURVES = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG


@dataclass(frozen=True)
class Colour:
    """Colour tags of a video, by their numbers; 2: not tagged."""

    matrix: int
    range: int  # 1 limited, 2 full, 0 not tagged
    primaries: int
    trc: int


SRGB = Colour(RGB, ColorRange.UNSPECIFIED, ColorPrimaries.BT709, ColorTrc.BT709)  # as images are


def assumed_matrix(height: int, width: int) -> int:
    """Returns the matrix of a video without a tag: BT.709 from 720 lines or 1280 columns on.

    Players do so too; FFmpeg alone would take BT.601 for everything.
    """
    return BT709 if height >= 720 or width >= 1280 else SMPTE170M


def untagged_matrix(frame: VideoFrame) -> str | None:
    """Returns PyAV's name of the matrix to assume for a frame; None if its own tag says which."""
    if frame.colorspace != UNSPECIFIED or frame.format.is_rgb:
        return None
    return MATRICES[assumed_matrix(frame.height, frame.width)]


def output_colour(given: Colour, height: int, width: int, *, rgb: bool, full: bool) -> Colour:
    """Returns the tags to write: those given, the matrix by the size where they leave it open.

    rgb: whether R, G and B are written, full: whether over the full range.
    """
    range_ = ColorRange.JPEG if full else ColorRange.MPEG
    matrix = given.matrix if given.matrix in MATRICES else assumed_matrix(height, width)
    return Colour(RGB if rgb else matrix, range_, given.primaries, given.trc)
