"""Image quality as papers report it: PSNR and SSIM on 8-bit frames, in RGB and in luma."""

from collections.abc import Sequence

import cv2
import numpy as np

# The scores of a frame, and what tables call them.
METRICS = {"psnr_rgb": "PSNR", "ssim_rgb": "SSIM", "psnr_y": "PSNR-Y", "ssim_y": "SSIM-Y"}

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2
# BT.601, studio range (16 .. 235), for inputs in 0 .. 255.
Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255
Y_OFFSET = 16.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over all channels jointly; inf for equal images.

    a, b: [h, w, c] or [h, w] in 0 .. 255 (uint8, or float as rgb_to_y returns). Raises ValueError
    if the shapes do not match.
    """
    a, b = _prepare(a, b, smallest=1)
    error = np.mean((a - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity: 11x11 Gaussian windows that lie inside, mean over channels.

    Arguments as for psnr. Raises ValueError if a side has less than 11 pixels.
    """
    a, b = _prepare(a, b, smallest=SSIM_TAPS)
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_a + variance_b + SSIM_C2)
    return float(np.mean(luminance * structure))


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Luma (BT.601, 16 .. 235, not rounded), float64 [..., h, w], of RGB [..., h, w, 3] uint8."""
    if image.shape[-1] != 3:
        raise ValueError(f"the image has {image.shape[-1]} channels; luma needs 3 (RGB).")
    return image.astype(np.float64) @ Y_WEIGHTS + Y_OFFSET


def frame_scores(pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """All four published scores of one frame: psnr_rgb, ssim_rgb, psnr_y, ssim_y.

    pred, gt: uint8 RGB [h, w, 3].
    """
    pred_y, gt_y = rgb_to_y(pred), rgb_to_y(gt)
    return {
        "psnr_rgb": psnr(pred, gt),
        "ssim_rgb": ssim(pred, gt),
        "psnr_y": psnr(pred_y, gt_y),
        "ssim_y": ssim(pred_y, gt_y),
    }


def mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Averages each score over those that have it: a first frame has no warping error."""
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: float(np.mean([s[name] for s in scores if name in s])) for name in names}


def _prepare(a: np.ndarray, b: np.ndarray, *, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks both images; returns them as float64."""
    if a.shape != b.shape:
        raise ValueError(f"the images are {a.shape} and {b.shape}; scores need equal shapes.")
    h, w = a.shape[:2]
    if min(h, w) < smallest:
        raise ValueError(f"the images are {h}x{w}; at least {smallest}x{smallest} is needed.")
    return a.astype(np.float64), b.astype(np.float64)


def _blur(image: np.ndarray) -> np.ndarray:
    """Gaussian average over the windows that lie inside: [h - 10, w - 10, ...]."""
    reach = SSIM_TAPS // 2
    kernel = np.exp(-((np.arange(SSIM_TAPS) - reach) ** 2) / (2 * SSIM_SIGMA**2))
    kernel /= kernel.sum()
    return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)[reach:-reach, reach:-reach]
