"""How a network that keeps the frames' size starts: with features that are the pixels themselves.

The published start is random. The correction of a frame then depends on each of a 4x4 block's
pixels in another way, so that the gradients of the 16 places cancel, and a small network learns
nothing for thousands of steps. Here the path from the frame through the shallow features to the
last convolution copies pixels into channels and back, and the last convolution is zero: the
network is the identity, and its last convolution sees many mixtures of the frame's colours,
normalised block by block.
"""

from typing import Any

import numpy as np

from rvrt_jax.errors import UserError

BLOCK = 4  # the features are a quarter of the frame each way
_PIXELS = 3 * BLOCK**2  # values of a block
_FRAME_BIAS = 0.5  # lifts noisy frames above 0, where the activations change nothing
# The same for features of unit variance: three standard deviations above 0, and all of it small
# enough that a step at a rate of 1e-3 does not change a picture by more than its noise.
_FEATURE_SCALE, _FEATURE_BIAS = 1 / 3, 1.0
_OUTPUT_SCALE = 0.05  # of what the last convolution sees


def pass_pixels(params: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters of an RVRT with upscale 1, all else as it was.

    Channels beyond the first 48 keep their random weights. Raises UserError for another network,
    and for one with fewer than 48 features in trunk or tail, which cannot hold a block's pixels.
    """
    if "downsample_0" not in params:
        raise UserError(
            "config.identity_start is for an RVRT with upscale=1; set it to False for this network."
        )
    width = params["downsample_1"]["bias"].shape[0]
    tail = params["upsampler"]["conv_in"]["bias"].shape[0]
    if min(width, tail) < _PIXELS:
        raise UserError(
            f"config.identity_start: {min(width, tail)} features cannot hold the {_PIXELS} values "
            f"of a 4x4 block. Give embed_dims and num_feat of {_PIXELS} or more, or leave it out."
        )
    fold = [_filled(params[f"downsample_{i}"], _folding(3 * 4**i)) for i in range(2)]
    fold[0]["bias"][:12] = _FRAME_BIAS
    upsampler = dict(params["upsampler"])
    upsampler["conv_in"] = _filled(upsampler["conv_in"], _copies(_PIXELS, size=1))
    upsampler["conv_in"]["kernel"][..., :_PIXELS] *= _FEATURE_SCALE
    upsampler["conv_in"]["bias"][:_PIXELS] = _FEATURE_BIAS
    for i in range(2):
        upsampler[f"conv_up_{i}"] = _filled(upsampler[f"conv_up_{i}"], _unfolding(12 // 4**i))
    upsampler["conv_hr"] = _mixing(upsampler["conv_hr"])
    upsampler["conv_out"] = {
        k: np.zeros_like(v) for k, v in params["upsampler"]["conv_out"].items()
    }
    inner = {
        name: {**params[name], "conv": _filled(params[name]["conv"], _copies(_PIXELS))}
        for name in ("extract", "reconstruct")
    }
    return {
        **params,
        "downsample_0": fold[0],
        "downsample_1": fold[1],
        **inner,
        "upsampler": upsampler,
    }


def _mixing(conv: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a convolution whose outputs are random mixtures of the first three channels."""
    kernel = np.zeros_like(conv["kernel"])
    weights = np.random.default_rng(0).standard_normal((3, kernel.shape[-1])).astype(kernel.dtype)
    kernel[1, 1, :3] = weights * _OUTPUT_SCALE / _FEATURE_SCALE
    return {"kernel": kernel, "bias": -_FEATURE_BIAS * kernel[1, 1, :3].sum(axis=0)}


def _filled(conv: dict[str, Any], taps: list[tuple[int, int, int, int]]) -> dict[str, np.ndarray]:
    """Returns a convolution whose outputs named in (row, column, in, out) are copies of an input."""
    kernel, bias = np.array(conv["kernel"]), np.array(conv["bias"])
    for row, column, source, target in taps:
        kernel[..., target], bias[target] = 0, 0
        kernel[row, column, source, target] = 1
    return {"kernel": kernel, "bias": bias}


def _copies(count: int, *, size: int = 3) -> list[tuple[int, int, int, int]]:
    """Copies the first channels."""
    return [(size // 2, size // 2, c, c) for c in range(count)]


def _folding(channels: int) -> list[tuple[int, int, int, int]]:
    """Of a 3x3 convolution of stride 2: puts each 2x2 block into channels, place after place."""
    return [
        (1 + dy, 1 + dx, c, (2 * dy + dx) * channels + c)
        for dy in range(2)
        for dx in range(2)
        for c in range(channels)
    ]


def _unfolding(channels: int) -> list[tuple[int, int, int, int]]:
    """Undoes `_folding` with the pixel shuffle that follows: see `ops.resize.pixel_shuffle`."""
    return [
        (1, 1, place * channels + c, 4 * c + place) for place in range(4) for c in range(channels)
    ]
