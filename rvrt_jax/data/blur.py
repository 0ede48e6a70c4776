"""Motion blur: what an open shutter adds up, in linear light."""

import cv2
import numpy as np

GAMMA = 2.2  # of sRGB, nearly: light = level ** GAMMA
SHAKE = 6.0  # pixels each way, of the shake that validation clips are blurred by
_LIGHT = (np.arange(256) / 255).astype(np.float32) ** np.float32(GAMMA)


def expose(frames: np.ndarray, count: int) -> np.ndarray:
    """Averages every `count` frames: uint8 [t * count, ...] to uint8 [t, ...].

    Light is averaged and not levels, since a bright spot that passes leaves a bright trail.
    """
    light = np.zeros((len(frames) // count, *frames.shape[1:]), np.float32)
    for moment in range(count):
        light += _LIGHT[frames[moment::count]]
    levels = 255 * (light / np.float32(count)) ** np.float32(1 / GAMMA)
    return np.rint(levels).astype(np.uint8)


def shutter(rng: np.random.Generator, steps: int) -> int:
    """Draws for how many of an odd number of moments the shutter is open, odd: half to all."""
    return 2 * int(rng.integers((steps + 2) // 4, steps // 2 + 1)) + 1


def exposures(count: int, step: int, moments: int) -> np.ndarray:
    """Returns the places of `count` exposures of `moments` each, whose middles lie `step` apart."""
    return (np.arange(count)[:, None] * step + np.arange(moments)).reshape(-1)


def shaken(
    clip: np.ndarray, rng: np.random.Generator, *, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a clip as a shaking camera sees it whose shutter never closes: (blurred, sharp).

    clip: uint8 [t, h, w, 3]. steps: moments of an exposure, odd; the sharp frame is the middle one.
    The shake is a sine along each axis, at most 6 pixels a frame fast, so that 17 steps are a third
    of a pixel apart. Both are smaller by a border, beyond which the camera looks.
    """
    time = np.arange(len(clip) * steps) / steps
    frequency, phase = rng.uniform(0.08, 0.16, 2), rng.uniform(0, 2 * np.pi, 2)
    shift = SHAKE * np.sin(2 * np.pi * np.outer(time, frequency) + phase)
    border = int(np.ceil(SHAKE)) + 2  # and what cubic interpolation reads
    views = np.stack([_moved(clip[i // steps], shift[i], border) for i in range(len(clip) * steps)])
    return expose(views, steps), views[steps // 2 :: steps]


def _moved(frame: np.ndarray, shift: np.ndarray, border: int) -> np.ndarray:
    h, w = frame.shape[:2]
    matrix = np.array([[1, 0, shift[0] + border], [0, 1, shift[1] + border]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, matrix, (w - 2 * border, h - 2 * border), flags=flags)
