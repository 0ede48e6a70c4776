"""How a network that keeps the frames' size starts: with features that are the pixels themselves.

The published start is random. The correction of a frame then depends on each of a 4x4 block's
pixels in another way, so that the gradients of the 16 places cancel, and a small network learns
nothing for thousands of steps. Here the path from the frame through the shallow features to the
last convolution copies pixels into channels and back, and the last convolution is zero: the
network is the identity, and its last convolution sees many mixtures of the frame's colours. The
norms would divide a block by its own contrast, and a little noise on a wall would look like a lot.
So the features that are not pixels start as constants that are larger than any contrast: what the
norms divide by is then nearly the same everywhere. A noise level goes the same way, and larger: as
sigma / 255 it is a fifth at most, and a network that hardly sees it removes too little of strong
noise and too much of weak.
"""

from typing import Any

import numpy as np

from rvrt_jax.errors import UserError

# Input channels: of a frame, and of what its neighbours differ by and how they moved.
COLOURS, DIFFERENCES, FLOWS = 3, 6, 4
_FRAME_BIAS = 0.5  # lifts noisy frames above 0, where the activations change nothing
_CONSTANT = 1.0  # the size of the features that are not pixels, before the norms
_FEATURE_SCALE, _FEATURE_BIAS = 0.5, 1.0  # as _FRAME_BIAS, of what the norms leave
_OUTPUT_SCALE = 0.3  # of what the last convolution sees
_LEVEL_SCALE = 10.0  # of the noise level as a feature
_FLOW_SCALE, _FLOW_BIAS = 2.0, 1.5  # of the flows as features; the bias lifts them above 0
_LEVELS = 4  # features that are the noise level, every other one with its sign changed

Taps = list[tuple[int, int, int, int]]  # (row, column, in, out) of a kernel


class Layout:
    """Where things lie among channels: pixels, then the noise level, then the differences.

    folds: how often the frame was folded. levels: channels that are the level.
    """

    def __init__(self, folds: int, levels: int, differences: int):
        self.pixels = COLOURS * 4**folds
        self.levels = levels
        self.moved = differences * 4**folds
        self.after = self.pixels + levels  # where the differences begin
        self.size = self.after + self.moved
        self.carried = [*range(self.pixels), *range(self.after, self.size)]


def pass_pixels(params: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters of an RVRT with upscale 1, all else as it was.

    A block of f x f pixels, f the stride of the features, has 3 f^2 values, which become the first
    channels; with `warped_neighbours` or `along_motion` the differences go the same way, and, where
    there is no noise level, the trunk sees the flows. Channels beyond keep their random weights.
    Raises UserError for another network, and for one whose trunk or tail has too few features to
    hold these and the constants.
    """
    if "downsample_0" not in params:
        raise UserError(
            "config.identity_start is for an RVRT with upscale=1; set it to False for this network."
        )
    folds = sum(name.startswith("downsample_") for name in params)
    width = params["downsample_0"]["bias"].shape[0]
    tail = params["upsampler"]["conv_in"]["bias"].shape[0]
    inputs = params["downsample_0"]["kernel"].shape[2]
    inputs -= COLOURS * ("image_denoiser" in params)  # the noisy frames, which come last
    neighbours = inputs > COLOURS + 1
    level = inputs - COLOURS - neighbours * (DIFFERENCES + FLOWS)
    differences = DIFFERENCES * neighbours
    layouts = [Layout(depth, level, differences) for depth in range(folds + 1)]
    trunk = Layout(folds, _LEVELS * level, differences)
    flows = FLOWS * (neighbours and not level)
    known = trunk.size + flows
    least = known + 2, layouts[-1].size
    if width < least[0] or tail < least[1]:
        raise UserError(
            f"config.identity_start: embed_dims of {width} and num_feat of {tail} cannot hold the "
            f"{trunk.pixels + trunk.moved} values of a {2**folds}x{2**folds} block, two constants "
            f"and, where there is one, the noise level. Give {least[0]} and {least[1]} or more, or "
            "leave it out."
        )
    down = {
        f"downsample_{i}": _filled(params[f"downsample_{i}"], _folding(*layouts[i : i + 2]))
        for i in range(folds)
    }
    first = down["downsample_0"]
    first["bias"][layouts[1].carried] = _FRAME_BIAS
    first["kernel"][..., layouts[1].pixels : layouts[1].after] *= _LEVEL_SCALE

    inner = {
        "extract": _filled(params["extract"]["conv"], _spreading(layouts[-1], trunk)),
        "reconstruct": _filled(params["reconstruct"]["conv"], _copies(range(known))),
    }
    share = np.sqrt(1 - trunk.pixels / width)  # what the norms divide constants of 1 by
    signs = np.where(np.arange(width - known) % 2, -1, 1)
    for name, size in (("extract", _CONSTANT), ("reconstruct", _CONSTANT / share)):
        inner[name]["bias"][known:] = size * signs
    # From -1 to 1 for a sigma from 0 to 51.
    shown = slice(trunk.pixels, trunk.after)
    signs = np.where(np.arange(trunk.levels) % 2, -1, 1)
    inner["extract"]["kernel"][..., shown] *= signs
    inner["extract"]["bias"][shown] = -signs

    if flows:
        _show_flows(down, inner["extract"], layouts, trunk)

    upsampler = dict(params["upsampler"])
    upsampler["conv_in"] = _filled(upsampler["conv_in"], _gathering(trunk, layouts[-1]))
    upsampler["conv_in"]["kernel"][..., : layouts[-1].size] *= _FEATURE_SCALE
    upsampler["conv_in"]["bias"][: layouts[-1].size] = _FEATURE_BIAS
    for i, depth in enumerate(reversed(range(folds))):
        taps = _unfolding(layouts[depth + 1], layouts[depth])
        upsampler[f"conv_up_{i}"] = _filled(upsampler[f"conv_up_{i}"], taps)
    upsampler["conv_hr"] = _mixing(upsampler["conv_hr"], layouts[0].carried)
    upsampler["conv_out"] = {
        k: np.zeros_like(v) for k, v in params["upsampler"]["conv_out"].items()
    }
    trunk_parts = {name: {**params[name], "conv": conv} for name, conv in inner.items()}
    return {**params, **down, **trunk_parts, "upsampler": upsampler}


def _show_flows(down: dict, extract: dict, layouts: list[Layout], trunk: Layout) -> None:
    """Passes the flows on to the trunk behind all else; changes the convolutions in place."""
    for i in range(len(down)):
        source, target = layouts[i].size, layouts[i + 1].size
        taps = [(1, 1, source + c, target + c) for c in range(FLOWS)]
        down[f"downsample_{i}"].update(_filled(down[f"downsample_{i}"], taps))
    seen = slice(layouts[1].size, layouts[1].size + FLOWS)
    down["downsample_0"]["kernel"][..., seen] *= _FLOW_SCALE
    down["downsample_0"]["bias"][seen] = _FLOW_BIAS
    taps = [(1, 1, layouts[-1].size + c, trunk.size + c) for c in range(FLOWS)]
    extract.update(_filled(extract, taps))
    extract["bias"][trunk.size : trunk.size + FLOWS] = -_FLOW_BIAS


def _mixing(conv: dict[str, Any], sources: list[int]) -> dict[str, np.ndarray]:
    """Returns a convolution half of whose outputs are random mixtures of some channels.

    The others see what the trunk makes of the frames, from the first step on.
    """
    kernel, bias = np.array(conv["kernel"]), np.array(conv["bias"])
    half = kernel.shape[-1] // 2
    weights = np.random.default_rng(0).standard_normal((len(sources), half)).astype(kernel.dtype)
    kernel[..., :half] = 0
    weights *= _OUTPUT_SCALE / _FEATURE_SCALE
    kernel[1, 1, sources, :half] = weights
    bias[:half] = -_FEATURE_BIAS * weights.sum(axis=0)
    return {"kernel": kernel, "bias": bias}


def _filled(conv: dict[str, Any], taps: Taps) -> dict[str, np.ndarray]:
    """Returns a convolution whose outputs at (row, column, in, out) copy an input."""
    kernel, bias = np.array(conv["kernel"]), np.array(conv["bias"])
    for row, column, source, target in taps:
        kernel[..., target], bias[target] = 0, 0
        kernel[row, column, source, target] = 1
    return {"kernel": kernel, "bias": bias}


def _copies(channels: range) -> Taps:
    """Copies channels."""
    return [(1, 1, c, c) for c in channels]


def _folding(source: Layout, target: Layout) -> Taps:
    """Of a 3x3 convolution of stride 2: puts each 2x2 block into channels, place after place."""
    taps = [(1, 1, source.pixels + i, target.pixels + i) for i in range(source.levels)]
    for count, start, end in (
        (source.pixels, 0, 0),
        (source.moved, source.after, target.after),
    ):
        taps += [
            (1 + dy, 1 + dx, start + c, end + (2 * dy + dx) * count + c)
            for dy in range(2)
            for dx in range(2)
            for c in range(count)
        ]
    return taps


def _unfolding(source: Layout, target: Layout) -> Taps:
    """Undoes `_folding` with the pixel shuffle that follows: see `ops.resize.pixel_shuffle`."""
    taps = []
    for place in range(4):
        for level in range(target.levels):
            taps.append((1, 1, source.pixels + level, 4 * (target.pixels + level) + place))
        for count, start, end in (
            (target.pixels, 0, 0),
            (target.moved, source.after, target.after),
        ):
            taps += [(1, 1, start + place * count + c, 4 * (end + c) + place) for c in range(count)]
    return taps


def _spreading(source: Layout, trunk: Layout) -> Taps:
    """Copies all, and the level into each channel that the trunk has for it."""
    taps = [(1, 1, source.pixels, trunk.pixels + i) for i in range(trunk.levels)]
    pairs = zip(source.carried, trunk.carried, strict=True)
    return [*taps, *((1, 1, *pair) for pair in pairs)]


def _gathering(trunk: Layout, target: Layout) -> Taps:
    """Of a 1x1 convolution: copies all, and of the trunk's levels the first."""
    taps = [(0, 0, trunk.pixels + i, target.pixels + i) for i in range(target.levels)]
    pairs = zip(trunk.carried, target.carried, strict=True)
    return [*taps, *((0, 0, *pair) for pair in pairs)]
