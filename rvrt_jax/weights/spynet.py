"""SpyNet's keys, alone and as a part of RVRT and BasicVSR."""

import numpy as np

from rvrt_jax.weights.mapping import Buffer, Family, Row, Table, module

_WIDTHS = (8, 32, 64, 32, 16, 2)


def rows(key: str, path: str) -> tuple[Row, ...]:
    """Returns the rows of a SpyNet whose keys and paths begin so."""
    found = []
    for conv in range(5):  # the odd entries of PyTorch's list are ReLUs
        found += module(
            f"{key}basic_module.{{level}}.basic_module.{2 * conv}",
            f"{path}level_{{level}}/conv_{conv}",
            "conv2d",
        )
    return tuple(found)


def buffers(key: str) -> tuple[Buffer, ...]:
    """Returns the constants of a SpyNet whose keys begin so."""
    first = f"{key}basic_module.0.basic_module.0.weight"
    constants = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    mean, std = constants.reshape(2, 1, 3, 1, 1)
    return Buffer(f"{key}mean", first, mean), Buffer(f"{key}std", first, std)


def shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by path."""
    found: dict[str, tuple[int, ...]] = {}
    for level in range(6):
        for conv, (width, out) in enumerate(zip(_WIDTHS, _WIDTHS[1:], strict=False)):
            found[f"level_{level}/conv_{conv}/kernel"] = (7, 7, width, out)
            found[f"level_{level}/conv_{conv}/bias"] = (out,)
    return found


FAMILY = Family(
    mark="basic_module.0.basic_module.0.weight",
    table=lambda fields: Table(rows("", ""), buffers("")),
    fields=lambda shapes: {},
)
