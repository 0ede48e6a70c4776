"""Finding where a new scene begins: the colours of the parts of the picture change at once.

A frame opens a scene if its colours differ from those before much more than those of frames nearby
do from one to the next, and those of the frame after it differ as well: a flash, or one broken
frame, does not. Fades and dissolves, which go slowly, are not cuts.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

BINS = 8  # of each colour channel
PARTS = 3  # of height and of width: a histogram for each
SAMPLES = 96  # rows and columns that are looked at, at most
LEAST = 0.35  # of all pixels that change their colour's bin, on average over the parts
TIMES_USUAL = 3.0  # over the mean of what changes between the frames nearby
MEMORY = 8  # frames back that tell what is usual


def split(frames: Iterable[np.ndarray]) -> Iterator[Iterator[np.ndarray]]:
    """Yields the frames of each scene; each must be read to its end before the next.

    frames: [h, w, 3], uint8 or uint16. One frame more than was asked for is read.
    """
    numbered = _numbered(frames)
    for _, scene in itertools.groupby(numbered, key=lambda pair: pair[0]):
        yield (frame for _, frame in scene)


def _numbered(frames: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number of the scene with each frame."""
    number, usual = 0, collections.deque(maxlen=MEMORY)
    described = ((frame, histogram(frame)) for frame in frames)
    before: np.ndarray | None = None
    # Pairs of a frame and the next one; the last frame is paired with None.
    ahead = itertools.chain(described, [None])
    current = next(ahead)
    while current is not None:
        following = next(ahead)
        frame, colours = current
        if before is not None:
            change = distance(before, colours)
            lasting = change if following is None else distance(before, following[1])
            recent = [*usual, *([distance(colours, following[1])] if following else [])]
            bound = max(LEAST, TIMES_USUAL * float(np.mean(recent)) if recent else 0.0)
            if min(change, lasting) > bound:
                number += 1
                usual.clear()
            else:
                usual.append(change)
        yield number, frame
        before, current = colours, following


def histogram(frame: np.ndarray) -> np.ndarray:
    """Returns the share of each colour among the pixels of each part, float32 [parts, colours]."""
    h, w, _ = frame.shape
    small = frame[:: -(-h // SAMPLES), :: -(-w // SAMPLES)]
    shift = 8 * frame.itemsize - BINS.bit_length() + 1
    red, green, blue = np.moveaxis(small >> shift, -1, 0).astype(np.int32)
    colours = (red * BINS + green) * BINS + blue
    parts = [
        np.bincount(part.ravel(), minlength=BINS**3) / max(1, part.size)
        for rows in np.array_split(colours, PARTS)
        for part in np.array_split(rows, PARTS, axis=1)
        if part.size
    ]
    return np.array(parts, np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the share of pixels whose colour has no counterpart, averaged over the parts."""
    return float(np.abs(a - b).sum(axis=1).mean() / 2)
