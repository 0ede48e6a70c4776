"""Films joined byte by byte: a clock that starts again within a file, made to rise as players do.

Only MPEG streams allow it (FFmpeg calls them discontinuous). A clock of 33 bits that runs over,
which takes 26 hours, is the same case.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def find_parts(dts: np.ndarray, durations: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Finds where the times of a stream's packets, [n] in its own unit, start again.

    Returns the part that each packet belongs to, [n], and what to add to the times of each part so
    that it goes on where the one before ends. A single time that falls back is no new part.
    """
    part, offsets = np.zeros(len(dts), np.int64), [0]
    last = 0  # of the packets that are in order
    for k in range(1, len(dts)):
        if dts[k] >= dts[last] or (dts[k + 1 : k + 2] >= dts[last]).all():
            last = k if dts[k] >= dts[last] else last
            continue
        step = int(durations[last]) or (int(dts[last] - dts[last - 1]) if last else 1)
        part[k:] += 1
        offsets.append(int(dts[last]) + offsets[-1] + step - int(dts[k]))
        last = k
    return part, offsets


class PartClock:
    """What to add to the times of one stream's packets or frames, which come almost in order."""

    def __init__(self, offsets: Sequence[Fraction], unit: Fraction) -> None:
        """offsets: of each part, in seconds. unit: of the stream's times, in seconds."""
        self._offsets = [round(offset / unit) for offset in offsets]
        self._expected: int | None = None
        self.part = 0

    def offset(self, stamp: int, duration: int, *, near: int | None = None) -> int:
        """Returns what to add to `stamp`: of the parts around `near`, the one that continues best.

        near: None stands for the part of the last stamp. All numbers are in the stream's unit.
        """
        near = self.part if near is None else near
        parts = range(max(0, near - 1), min(len(self._offsets), near + 2))
        expected = self._expected
        if expected is None:
            self.part = near
        else:
            self.part = min(parts, key=lambda k: abs(stamp + self._offsets[k] - expected))
        self._expected = stamp + self._offsets[self.part] + duration
        return self._offsets[self.part]

    def offset_in(self, part: int) -> int:
        """Returns what to add to every time in a part."""
        return self._offsets[part]
