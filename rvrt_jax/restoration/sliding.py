"""Sliding a model's window over a clip of any length, each frame's features computed once.

For models with a `window` (EDVR): `model.features` makes of a frame what all windows with it share,
`model.fuse` makes the middle frame of such features. Where a window reaches beyond the clip, a rule
says which frames stand in (`frame_indices`), as published.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rvrt_jax.errors import UserError

RULES: dict[str, Callable[[int, int, int, int], int]] = {
    # (index, last index of the clip, centre, frames to either side) -> index
    "replicate": lambda i, last, c, n: min(max(i, 0), last),
    "reflection": lambda i, last, c, n: -i if i < 0 else 2 * last - i if i > last else i,
    "reflection_circle": lambda i, last, c, n: (
        c + n - i if i < 0 else (c - n) - (i - last) if i > last else i
    ),
    "circle": lambda i, last, c, n: 2 * n + 1 + i if i < 0 else i - 2 * n - 1 if i > last else i,
}


def check(model, border: str) -> None:
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
        # A rule may look a whole window back or forth, near the ends of the clip.
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


@functools.partial(jax.jit, static_argnums=0)
def features(model, params, frames):
    """Returns the features of frames, [b, h, w, 3]; compiled once per model and shape."""
    return model.apply({"params": params}, frames, method="features")


@functools.partial(jax.jit, static_argnums=0)
def fuse(model, params, pyramids, middle):
    """Returns (the middle frames, [b, scale * h, scale * w, 3], what the model tells of itself).

    pyramids: of each frame of the window a list of b features, [1, h, w, c] each. middle:
    [b, h, w, 3].
    """
    stacked = [jax.tree.map(lambda *x: jnp.concatenate(x), *frame) for frame in pyramids]
    window = jax.tree.map(lambda *x: jnp.stack(x), *stacked)
    out, told = model.apply(
        {"params": params}, window, middle, method="fuse", mutable=["diagnostics"]
    )
    return out, told.get("diagnostics", {})


class Slider:
    """Runs a model over the windows of one clip, or of one piece of it after the other.

    Each frame's features are kept while windows still need them.

    batch: windows that go through the network at once. `told`: for each thing the model tells of
    itself (as mutable="diagnostics"), its value in every call so far.
    """

    def __init__(self, model, params, batch: int) -> None:
        self._model, self._params, self._batch = model, params, batch
        self._kept: dict[int, tuple] = {}
        self.told: dict[str, list[float]] = {}

    def run(self, frame: Callable[[int], np.ndarray], indices: list[list[int]]) -> np.ndarray:
        """Returns the middle frames of up to `batch` windows, float32 [b, scale * h, scale * w, 3].

        frame(index): a frame, float32 [h, w, 3] of a size that the model takes; always the same
        piece of it, in the same orientation, until `forget`.
        """
        count = len(indices)
        indices = indices + indices[-1:] * (self._batch - count)  # always the same program
        middle = np.stack([frame(each[self._model.centre]) for each in indices])
        kept = self._kept
        oldest = min(index for each in indices for index in each)
        for old in [index for index in kept if index < oldest]:
            del kept[old]
        for index in sorted({index for each in indices for index in each} - kept.keys()):
            kept[index] = features(self._model, self._params, frame(index)[None])
        pyramids = [[kept[each[place]] for each in indices] for place in range(self._model.window)]
        out, told = fuse(self._model, self._params, pyramids, middle)
        for name, value in told.items():
            self.told.setdefault(name, []).append(float(value))
        return np.asarray(out)[:count]

    def forget(self) -> None:
        """Lets go of all features."""
        self._kept.clear()


def compiled_bytes(model, params, call: tuple[int, int, int]) -> int:
    """Compiles both halves for calls (windows, h, w) and returns the bytes that they take at most.

    The features of the windows, which stay on the device, count among the arguments.
    """
    batch, h, w = call
    frame, middle = (jax.ShapeDtypeStruct((n, h, w, 3), np.float32) for n in (1, batch))
    pyramid = jax.eval_shape(functools.partial(features, model), params, frame)
    pyramids = [[pyramid] * batch] * model.window
    programs = features.lower(model, params, frame), fuse.lower(model, params, pyramids, middle)
    return max(_bytes(program.compile().memory_analysis()) for program in programs)


def _bytes(memory) -> int:
    assert memory is not None  # CPU, GPU and TPU report it
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
