"""What the bundled clips are made to ask of networks: enlarging, denoising, deblurring.

None of our networks was trained on these clips; edvr_tiny and rvrt_tiny were chosen by them. Each
task degrades a clip in a way that is drawn from the clip's place in the order of names, so that it
is the same at every run.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from rvrt_jax.data import blur
from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.data.degrade import add_noise, bicubic_down, imresize
from rvrt_jax.media.frames import to_float, to_uint

SCALE = 4
_ENLARGING = ("rvrt_small", "edvr_tiny", "basicvsr_reds4")
_DENOISING = ("rvrt_denoise_small", "ffdnet_color")
_DEBLURRING = ("rvrt_deblur_small",)
_EXPOSURE = 17  # moments of a frame that motion blur averages


@dataclass(frozen=True)
class Task:
    """A degradation, the networks made for it, and what to hold them against.

    title: a sentence's end; input, baseline: what tables call the input, and a classical method
    that needs no weights. networks: known weights, ours first. sigma: noise level in 8-bit steps.
    """

    key: str
    title: str
    scale: int
    input: str
    baseline: str
    networks: tuple[str, ...]
    sigma: float | None = None


TASKS = {
    task.key: task
    for task in (
        Task("sr", "x4 super-resolution", SCALE, "input", "bicubic", _ENLARGING),
        Task("denoise20", "noise of sigma 20", 1, "noisy", "non-local means", _DENOISING, 20.0),
        Task("denoise50", "noise of sigma 50", 1, "noisy", "non-local means", _DENOISING, 50.0),
        Task("deblur", "motion blur", 1, "blurred", "unsharp mask", _DEBLURRING),
    )
}


@dataclass(frozen=True)
class Posed:
    """A clip as a task poses it: t frames.

    lq: what the network gets, uint8 or, with noise, float32 [t, h, w, 3], which leaves [0, 1].
    shown: the same as a person would see it, uint8 of the truth's size. truth: uint8.
    """

    lq: np.ndarray
    shown: np.ndarray
    truth: np.ndarray


def clips() -> dict[str, np.ndarray]:
    """Returns the bundled clips in order of name, uint8 [12, 192, 320, 3] each."""
    return load_folders(BUNDLED)


def pose(task: Task, clip: str) -> Posed:
    """Degrades a bundled clip."""
    every = clips()
    truth, rng = every[clip], np.random.default_rng(list(every).index(clip))
    if task.key == "sr":
        lq = bicubic_down(truth, SCALE)
        return Posed(lq, lq.repeat(SCALE, axis=1).repeat(SCALE, axis=2), truth)
    if task.sigma is not None:
        lq = add_noise(to_float(truth), task.sigma, rng)
        return Posed(lq, to_uint(lq, 8), truth)
    lq, truth = blur.shaken(truth, rng, steps=_EXPOSURE)
    return Posed(lq, lq, truth)


def baseline(task: Task, posed: Posed) -> np.ndarray:
    """Restores a clip by a classical method, frame by frame; returns uint8 [t, h, w, 3].

    Bicubic enlargement; non-local means (Buades et al., CVPR 2005), as strong as the noise; an
    unsharp mask, since what was blurred how far is not known.
    """
    if task.key == "sr":
        return np.stack([imresize(frame, SCALE) for frame in posed.lq])
    if task.sigma is not None:
        strength = 0.8 * task.sigma
        return np.stack(
            [
                cv2.fastNlMeansDenoisingColored(frame, None, strength, strength, 5, 15)
                for frame in posed.shown
            ]
        )
    return np.stack([_sharpened(frame) for frame in posed.shown])


def _sharpened(frame: np.ndarray) -> np.ndarray:
    soft = cv2.GaussianBlur(frame, (0, 0), 1.5)
    return cv2.addWeighted(frame, 1.5, soft, -0.5, 0)
