"""Small networks of every family, with parameters that leave no layer without effect."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from rvrt_jax import models
from rvrt_jax.models.contract import in_channels
from rvrt_jax.weights.load import Loaded

_RVRT = {
    "embed_dims": (16, 16, 16),
    "num_heads": (2, 2, 2),
    "num_blocks": (1, 1, 1),
    "inputconv_groups": (1, 1, 1, 1, 1, 1),
    "deformable_groups": 4,
    "attention_heads": 4,
    "num_feat": 8,
    "offset_feat": 8,
}
_EDVR = {"num_feat": 8, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 1}
# name: model, fields, and a size that it takes (frames, height, width)
_SMALL = {
    "rvrt": ("rvrt_sr", _RVRT, (4, 9, 12)),
    "denoise": ("rvrt_denoise", _RVRT, (2, 12, 16)),
    "edvr": ("edvr_m", _EDVR, (5, 16, 20)),
    "basicvsr": ("basicvsr", {"num_feat": 8, "num_block": 1}, (2, 9, 12)),
}


@functools.cache
def small(name: str) -> tuple[Loaded, tuple[int, int, int]]:
    """Returns a network of "rvrt", "denoise", "edvr" or "basicvsr", and a size that it takes."""
    model_name, fields, size = _SMALL[name]
    model = models.build(model_name, **fields)
    video = jax.ShapeDtypeStruct((1, *size, in_channels(model)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), video)["params"]
    random = np.random.default_rng(1)

    def draw(leaf) -> np.ndarray:
        scale = 0.3 / math.sqrt(math.prod(leaf.shape[:-1]))
        return (scale * random.standard_normal(leaf.shape)).astype(np.float32)

    return Loaded(model, jax.tree.map(draw, shapes), "CC0-1.0", "drawn at random"), size
