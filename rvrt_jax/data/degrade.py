"""The published degradations: MATLAB bicubic (BI), Gaussian blur and decimation (BD), noise.

Resampling is separable: along each axis a result is a weighted sum of a few pixels. The taps are
cached because training asks for the same few sizes over and over; summing them one by one needs
no BLAS, whose threads would fight with the training for the cores.
"""

import functools

import cv2
import numpy as np

# BD: Gaussian of 12 taps (2 * ceil(3 * sigma) + 2), every 4th pixel.
BLUR_SIGMA = 1.6
BLUR_TAPS = 12
BLUR_STEP = 4

# Pixel index and weight of every tap of every result along one axis, each [taps, results].
Taps = tuple[np.ndarray, np.ndarray]


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Resizes as MATLAB's `imresize(image, scale)` does: bicubic, antialiased when shrinking.

    image: [..., h, w, c], uint8 or float. Returns [..., ceil(h * scale), ceil(w * scale), c] in
    the same dtype; uint8 is rounded once, after both axes, float is neither rounded nor clipped.
    """
    if scale <= 0:
        raise ValueError(f"scale is {scale}; it must be positive.")
    h, w = image.shape[-3:-1]
    return _resample(image, _bicubic_taps(h, scale), _bicubic_taps(w, scale))


def bicubic_down(clip: np.ndarray, scale: int = 4) -> np.ndarray:
    """Shrinks a clip by an integer factor (the BI degradation).

    clip: [..., h, w, c] with h and w multiples of `scale`. Returns [..., h/scale, w/scale, c].
    """
    _check_multiple(clip, scale)
    return imresize(clip, 1 / scale)


def blur_down(clip: np.ndarray, scale: int = 4) -> np.ndarray:
    """Blurs and keeps every 4th pixel (the BD degradation); the border is replicated.

    clip: [..., h, w, c] with h and w multiples of 4. Returns [..., h/4, w/4, c]. The kernel has an
    even number of taps, so that pixel i of the result is centred on pixels 4i .. 4i+3.
    """
    if scale != BLUR_STEP:
        raise ValueError(f"scale is {scale}; the BD degradation is defined for {BLUR_STEP} only.")
    _check_multiple(clip, scale)
    h, w = clip.shape[-3:-1]
    return _resample(clip, _blur_taps(h), _blur_taps(w))


def add_noise(clip: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Adds white Gaussian noise of standard deviation sigma / 255; not clipped, not quantised.

    clip: float [..., c] in [0, 1]. sigma: in 8-bit levels, 0 is valid. Returns float32.
    """
    if sigma < 0:
        raise ValueError(f"sigma is {sigma}; it must be 0 or more (in 8-bit levels).")
    noise = rng.standard_normal(clip.shape, dtype=np.float32)
    return clip.astype(np.float32) + np.float32(sigma / 255) * noise


def mod_crop(clip: np.ndarray, multiple: int) -> np.ndarray:
    """Cuts the last rows and columns of [..., h, w, c] so that `multiple` divides h and w."""
    h, w = clip.shape[-3:-1]
    return clip[..., : h - h % multiple, : w - w % multiple, :]


DEGRADATIONS = {"bicubic": bicubic_down, "blur_down": blur_down}


def _check_multiple(clip: np.ndarray, scale: int) -> None:
    h, w = clip.shape[-3:-1]
    if h % scale or w % scale:
        raise ValueError(
            f"the frame is {h}x{w}, not a multiple of {scale}. Cut it with mod_crop first."
        )


def _resample(image: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Applies both axes' taps; uint8 is computed in float32 and rounded."""
    h, w, c = image.shape[-3:]
    size = rows[0].shape[1], columns[0].shape[1]
    result = np.empty((*image.shape[:-3], *size, c), image.dtype)
    # A frame at a time, which stays in the processor's cache, and the axis that is summed along in
    # front, so that a tap is a few long lines.
    for frame, into in zip(image.reshape(-1, h, w, c), result.reshape(-1, *size, c), strict=True):
        x = _turned(frame).reshape(w, h * c)
        if image.dtype == np.uint8:
            x = x.astype(np.float32) / np.float32(255)
        # In [0, 1], columns first: the rounding of ties then agrees with the usual LR files.
        x = _along(x, columns).reshape(size[1], h, c)
        x = _turned(x).reshape(h, size[1] * c)
        x = _along(x, rows).reshape(*size, c)
        if image.dtype == np.uint8:
            x = np.rint(x * np.float32(255)).clip(0, 255)
        into[...] = x
    return result


def _turned(frame: np.ndarray) -> np.ndarray:
    """Returns [h, w, c] as a new [w, h, c]."""
    if frame.shape[-1] > 4:
        return np.ascontiguousarray(frame.swapaxes(0, 1))
    return cv2.transpose(frame)  # ten times as fast


def _along(x: np.ndarray, taps: Taps) -> np.ndarray:
    """Sums weight * line over the taps, in a fixed order: [n, m] to [results, m]."""
    index, weights = taps
    weights = weights.astype(x.dtype)[..., None]
    result = weights[0] * x[index[0]]
    part = np.empty_like(result)
    for i in range(1, len(index)):
        np.take(x, index[i], axis=0, out=part, mode="clip")  # "raise" would copy once more
        part *= weights[i]
        result += part
    return result


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@functools.lru_cache(maxsize=64)
def _bicubic_taps(size: int, scale: float) -> Taps:
    """Taps of one axis, ceil(size * scale) results; the border is mirrored, edge repeated."""
    stretch = max(1.0, 1 / scale)
    centres = (np.arange(np.ceil(size * scale)) + 0.5) / scale - 0.5
    count = int(np.ceil(4 * stretch)) + 2
    index = np.floor(centres - 2 * stretch).astype(int) + np.arange(count)[:, None]
    weights = _cubic((centres - index) / stretch)
    weights /= weights.sum(axis=0)
    used = np.any(weights != 0, axis=1)
    mirrored = index[used] % (2 * size)
    return np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored), weights[used]


@functools.lru_cache(maxsize=64)
def _blur_taps(size: int) -> Taps:
    """Taps of one axis of the BD degradation, size / 4 results."""
    offsets = np.arange(BLUR_TAPS)[:, None] - (BLUR_TAPS - 1) / 2
    kernel = np.exp(-(offsets**2) / (2 * BLUR_SIGMA**2))
    centres = np.arange(0, size, BLUR_STEP) + (BLUR_STEP - 1) / 2
    index = (centres + offsets).astype(int).clip(0, size - 1)
    return index, np.broadcast_to(kernel / kernel.sum(), index.shape)
