"""Sliding a network's window over a clip of any length, each frame's features computed once.

For networks with a `window` (EDVR): `features` makes of a frame what all windows with it share,
`fuse` makes the middle frame of such features. Where a window reaches beyond the clip, a rule says
which frames stand in (`frame_indices`), as published.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Params
from rvrt_jax.restoration import programs

RULES: dict[str, Callable[[int, int, int, int], int]] = {
    # (index, last index of the clip, centre, frames to either side) -> index
    "replicate": lambda i, last, c, n: min(max(i, 0), last),
    "reflection": lambda i, last, c, n: -i if i < 0 else 2 * last - i if i > last else i,
    "reflection_circle": lambda i, last, c, n: (
        c + n - i if i < 0 else (c - n) - (i - last) if i > last else i
    ),
    "circle": lambda i, last, c, n: 2 * n + 1 + i if i < 0 else i - 2 * n - 1 if i > last else i,
}


def check(model: Network, border: str) -> None:
    """Raises UserError for an unknown rule, and a window that does not reach as far both ways."""
    if border not in RULES:
        raise UserError(f"border is {border!r}; choose from {', '.join(RULES)}.")
    if model.window != 2 * model.centre + 1:
        raise UserError(
            f"the model takes windows of {model.window} frames and restores number "
            f"{model.centre}; only windows with as many frames before it as after it can slide."
        )


def frame_indices(centre: int, length: int, window: int, border: str) -> list[int]:
    """Returns the frames of the odd window round `centre`, in order, in a clip of `length` frames.

    border: a name in `RULES`. A clip so short that the rule would lead out of it gets "replicate"
    for all its frames.
    """
    n, last = window // 2, length - 1
    shortest = n + 1 if border == "reflection" else window
    rule = RULES["replicate" if length < shortest else border]
    return [rule(i, last, centre, n) for i in range(centre - n, centre + n + 1)]


def windows(
    frames: Iterable, window: int, border: str, batch: int
) -> Iterator[tuple[dict[int, np.ndarray], list[list[int]]]]:
    """Yields (frames by index, the windows of up to `batch` further centres) along a video.

    frames: any number of them. Holds no more than 2 * window + batch frames: those that these or
    later windows need. Raises UserError if there are none.
    """
    source = iter(frames)
    held: dict[int, np.ndarray] = {}
    read, centre, length = 0, 0, None
    while length is None or centre < length:
        # A rule may look a whole window back or ahead, near the ends of the clip.
        wanted = max(centre + batch - 1 + window // 2, window - 1)
        while length is None and read <= wanted:
            frame = next(source, None)
            if frame is None:
                length = read
            else:
                held[read] = frame
                read += 1
        if read == 0:
            raise UserError("the video has no frames; give at least one.")
        # As long as the end is unknown it lies beyond all these windows.
        known = wanted + 1 if length is None else length
        stop = centre + batch if length is None else min(centre + batch, length)
        if stop == centre:  # the end came just where a batch ended
            return
        yield held, [frame_indices(c, known, window, border) for c in range(centre, stop)]
        centre = stop
        for old in [index for index in held if index < centre - window]:
            del held[old]


class Slider:
    """Runs a network over the windows of one clip, or of one piece of it after the other.

    Each frame's features are kept while windows still need them.
    """

    def __init__(self, model: Network, params: Params, batch: int) -> None:
        """batch: the windows, and the new frames, that go through the network at once."""
        self._model, self._params, self._batch = model, params, batch
        self._kept: dict[int, tuple[Any, Array]] = {}
        # For each thing the network says of itself (as mutable="diagnostics"), a value a call.
        self.diagnostics: dict[str, list[Array]] = {}

    def run(self, frame: Callable[[int], Array], indices: list[list[int]]) -> Array:
        """Returns the middle frames of up to `batch` windows, float32 [b, scale * h, scale * w, 3].

        frame(index): a frame, float32 [h, w, 3] of a size that the network takes; always the same
        piece of it, in the same orientation, until `forget`.
        """
        count = len(indices)
        indices = indices + indices[-1:] * (self._batch - count)  # always the same program
        kept = self._kept
        oldest = min(index for each in indices for index in each)
        for old in [index for index in kept if index < oldest]:
            del kept[old]
        new = sorted({index for each in indices for index in each} - kept.keys())
        for start in range(0, len(new), self._batch):
            self._look_at(new[start : start + self._batch], frame)
        middle = jnp.stack([kept[each[self._model.centre]][1] for each in indices])
        window = self._model.window or 1
        pyramids = [[kept[each[place]][0] for each in indices] for place in range(window)]
        out, diagnostics = programs.fuse(self._model, self._params, pyramids, middle)
        for name, value in diagnostics.items():
            self.diagnostics.setdefault(name, []).append(value)
        return out[:count]

    def _look_at(self, new: list[int], frame: Callable[[int], Array]) -> None:
        """Computes the features of up to `batch` frames at once."""
        images = [frame(index) for index in new]
        filled = jnp.stack(images + images[-1:] * (self._batch - len(new)))  # as `run` does
        found = programs.features(self._model, self._params, filled)
        for i, (index, image) in enumerate(zip(new, images, strict=True)):
            self._kept[index] = jax.tree.map(lambda x, i=i: x[i : i + 1], found), image

    def forget(self) -> None:
        """Lets go of all features."""
        self._kept.clear()
