"""How a network that keeps the frames' size starts: with features that are the pixels themselves.

The published start is random. The correction of a frame then depends on each of a 4x4 block's
pixels in another way, so that the gradients of the 16 places cancel, and a small network learns
nothing for thousands of steps. Here the path from the frame through the shallow features to the
last convolution copies pixels into channels and back, and the last convolution is zero: the
network is the identity, and its last convolution sees many mixtures of the frame's colours. The
norms would divide a block by its own contrast, and a little noise on a wall would look like a lot.
So the features that are not pixels start as constants that are larger than any contrast: what the
norms divide by is then nearly the same everywhere.
"""

from typing import Any

import numpy as np

from rvrt_jax.errors import UserError

BLOCK = 4  # the features are a quarter of the frame each way
_PIXELS = 3 * BLOCK**2  # values of a block
_FRAME_BIAS = 0.5  # lifts noisy frames above 0, where the activations change nothing
_CONSTANT = 1.0  # the size of the features that are not pixels, before the norms
_FEATURE_SCALE, _FEATURE_BIAS = 0.5, 1.0  # as _FRAME_BIAS, of what the norms leave
_OUTPUT_SCALE = 0.3  # of what the last convolution sees


def pass_pixels(params: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters of an RVRT with upscale 1, all else as it was.

    Channels beyond the first 48 keep their random weights. Raises UserError for another network,
    and for one whose trunk has no more than 48 features or whose tail has fewer, which cannot hold
    a block's pixels and the constants.
    """
    if "downsample_0" not in params:
        raise UserError(
            "config.identity_start is for an RVRT with upscale=1; set it to False for this network."
        )
    width = params["downsample_1"]["bias"].shape[0]
    tail = params["upsampler"]["conv_in"]["bias"].shape[0]
    if width < _PIXELS + 2 or tail < _PIXELS:
        raise UserError(
            f"config.identity_start: embed_dims of {width} and num_feat of {tail} cannot hold the "
            f"{_PIXELS} values of a 4x4 block and two constants. Give {_PIXELS + 2} and {_PIXELS} "
            "or more, or leave it out."
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
    share = np.sqrt(1 - _PIXELS / width)  # what the norms divide constants of 1 by
    inner = {
        name: {**params[name], "conv": _filled(params[name]["conv"], _copies(_PIXELS))}
        for name in ("extract", "reconstruct")
    }
    for name, size in (("extract", _CONSTANT), ("reconstruct", _CONSTANT / share)):
        signs = np.where(np.arange(width - _PIXELS) % 2, -1, 1)
        inner[name]["conv"]["bias"][_PIXELS:] = size * signs
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
    """Returns a convolution whose outputs at (row, column, in, out) copy an input."""
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
