"""Published augmentation: flips and transposition, the same for all frames of a sample."""

import numpy as np


def augment(
    clips: tuple[np.ndarray, ...], rng: np.random.Generator, *, reverse: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Flips left-right, flips up-down and transposes, each with probability one half.

    clips: arrays [t, h, w, c] that get the same treatment. reverse: probability of playing them
    backwards. Returns views.
    """
    across, down, transpose = rng.random(3) < 0.5
    backwards = rng.random() < reverse
    return tuple(
        _apply(clip, across=across, down=down, transpose=transpose, backwards=backwards)
        for clip in clips
    )


def _apply(
    clip: np.ndarray, *, across: bool, down: bool, transpose: bool, backwards: bool
) -> np.ndarray:
    if across:
        clip = clip[:, :, ::-1]
    if down:
        clip = clip[:, ::-1]
    if transpose:
        clip = clip.swapaxes(1, 2)
    return clip[::-1] if backwards else clip
