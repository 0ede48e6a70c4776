"""What frames carry beside their pixels: how they are to be turned, HDR metadata, captions.

PyAV frees a frame whose side data were asked for no sooner than the garbage collector runs.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

from rvrt_jax.errors import UserError

_DYNAMIC = {
    Type.DYNAMIC_HDR_PLUS: "HDR10+ metadata",
    Type.DOVI_METADATA: "Dolby Vision metadata",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid metadata",
}


@dataclass(frozen=True)
class Hdr:
    """HDR10 metadata of a film (SMPTE ST 2086, CTA-861.3).

    primaries: (x, y) of red, green, blue and white. luminance: lowest and highest, in cd/m2.
    light: the lightest pixel and the lightest frame's mean, in cd/m2. None: not given.
    dynamic: what else there is, scene by scene, in words: no encoder here takes it.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None
    luminance: tuple[Fraction, Fraction] | None
    light: tuple[int, int] | None
    dynamic: tuple[str, ...]

    @property
    def static(self) -> bool:
        """Whether there is anything that does not change from scene to scene."""
        return self.light is not None or (self.primaries is not None and self.luminance is not None)

    def encoder_options(self, names: tuple[str, str, str]) -> tuple[str, str]:
        """Returns an encoder's option and what to add to it.

        names: the option, and within it the names of mastering data and of light levels.
        """
        option, mastering, light = names
        parts = []
        if self.primaries is not None and self.luminance is not None:
            parts.append(f"{mastering}={self._mastering(whole=option != 'svtav1-params')}")
        if self.light is not None:
            parts.append(f"{light}={self.light[0]},{self.light[1]}")
        return option, ":".join(parts)

    def _mastering(self, *, whole: bool) -> str:
        """Returns G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min), in whole units of ST 2086 or decimals."""
        assert self.primaries is not None and self.luminance is not None

        def text(value: Fraction, unit: int) -> str:
            return str(round(value * unit)) if whole else f"{float(value):.5f}"

        red, green, blue, white = (
            f"({text(x, 50_000)},{text(y, 50_000)})" for x, y in self.primaries
        )
        lowest, highest = (text(value, 10_000) for value in self.luminance)
        return f"G{green}B{blue}R{red}WP{white}L({highest},{lowest})"


def hdr(frame: VideoFrame) -> Hdr | None:
    """Returns a frame's HDR metadata; None if it has none."""
    data = _of(frame)
    primaries = luminance = light = None
    mastering = data.get(Type.MASTERING_DISPLAY_METADATA)
    if mastering is not None:
        # AVMasteringDisplayMetadata: 10 fractions, then which of them count.
        numbers = struct.unpack_from("=22i", bytes(mastering))
        values = [Fraction(a, b or 1) for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        if numbers[20]:
            primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
        if numbers[21]:
            luminance = values[8], values[9]
    levels = data.get(Type.CONTENT_LIGHT_LEVEL)
    if levels is not None:
        light = struct.unpack_from("=2I", bytes(levels))
    dynamic = tuple(words for kind, words in _DYNAMIC.items() if data.get(kind) is not None)
    if primaries is luminance is light is None and not dynamic:
        return None
    return Hdr(primaries, luminance, light, dynamic)


def has_captions(frame: VideoFrame) -> bool:
    """Tells whether a frame holds closed captions (ATSC A/53)."""
    return _of(frame).get(Type.A53_CC) is not None


def orientation(frame: VideoFrame, path: Path) -> tuple[bool, bool, bool]:
    """Returns (swap axes, then mirror left-right, then flip top-bottom) that set a frame upright.

    The display matrix maps a pixel (x, y) to (a x + c y, b x + d y), in 1/65536.
    """
    matrix = _of(frame).get(Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    if (a == d == 0) == (b == c == 0):
        raise UserError(
            f"{path} is to be shown at a slant of {frame.rotation} degrees. Turn it first."
        )
    return b != 0, a + c < 0, b + d < 0


def _of(frame: VideoFrame) -> SideDataContainer:
    return cast(SideDataContainer, frame.side_data)
