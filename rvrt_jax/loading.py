"""Build a model and fill it with weights from any file the project knows."""

import os
from pathlib import Path

from rvrt_jax.convert import keys, state, tables

ASSETS = Path(__file__).parent / "assets"

_SPYNET_WIDTHS = (8, 32, 64, 32, 16, 2)


def spynet_params(path: str | os.PathLike = ASSETS / "spynet.safetensors") -> dict:
    """Returns trained SpyNet parameters, {level_0: {conv_0: {kernel, bias}, ...}, ...}, float32.

    For the `spynet` part of a model's parameters, before training. The packaged file is described
    in assets/spynet.md; `path` may name another SpyNet checkpoint, `.pth` or `.safetensors`.
    """
    shapes = {}
    for level in range(6):
        for conv, (width, out) in enumerate(zip(_SPYNET_WIDTHS, _SPYNET_WIDTHS[1:], strict=False)):
            shapes[f"level_{level}/conv_{conv}/kernel"] = (7, 7, width, out)
            shapes[f"level_{level}/conv_{conv}/bias"] = (out,)
    weights = state.read(path).state
    return keys.nest(keys.to_params(tables.table("spynet", {}), weights, shapes))
