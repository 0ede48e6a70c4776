"""Tell from the keys and shapes of a state dict which model it belongs to."""

import math
import re
from collections.abc import Mapping

import numpy as np

from rvrt_jax.weights import edvr as styles

# A key that every checkpoint of the model has, and no other model's.
_MARKS = {
    "rvrt": "backbone.backward_1.main.1.weight",
    "basicvsr": "backward_trunk.main.0.weight",
    "edvr": "pcd_align.offset_conv1.l1.weight",
    "predeblur": "predeblur.stride_conv_l2.weight",  # EDVR may have it too, and comes first
    "spynet": "basic_module.0.basic_module.0.weight",
}


def detect(state: Mapping[str, np.ndarray]) -> dict | None:
    """Returns {"name": model} and those of its fields that shapes show; None for none we know.

    The keys may be of any style that `styles.canonical` knows.
    Shapes do not show RVRT's `attention_heads`, `attention_window` (taken as 3x3 to work out
    `deformable_groups`) and `max_residue_magnitude`. For a checkpoint with keys missing only the
    name is told.
    """
    shapes = {key: array.shape for key, array in styles.canonical(state).items()}
    for name, mark in _MARKS.items():
        if mark in shapes:
            return {"name": name, **_FIELDS[name](shapes)}
    return None


def _basicvsr(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    return {
        "num_feat": shapes[_MARKS["basicvsr"]][0],
        "num_block": _count(shapes, r"backward_trunk\.main\.2\.(\d+)\.conv1\.weight"),
    }


def _rvrt(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    upscale = 4 if "feat_extract.main.1.weight" in shapes else 1
    extract = "feat_extract.main" if upscale == 4 else "feat_extract.6.main"
    branches = [f"backbone.{d}_{i}.main" for i in (1, 2) for d in ("backward", "forward")]
    stacks = [extract, branches[0], "reconstruction.main"]
    layers = [f"{stack}.5.0.residual_group.blocks.0" for stack in stacks]
    tables = [f"{layer}.attn.relative_position_bias_table" for layer in layers]
    first = "feat_extract.main.1.weight" if upscale == 4 else "feat_extract.1.weight"
    offset = "deform_align.backward_1.conv_offset"
    convs = [f"{stack}.1.weight" for stack in (extract, *branches, "reconstruction.main")]
    needed = {
        *(first, *convs, *tables, f"{layers[1]}.mlp.fc1.weight", "conv_last.weight"),
        *(f"{offset}.0.weight", f"{offset}.10.weight"),
    }
    if needed - shapes.keys():
        return {}
    dims = tuple(shapes[f"{stack}.1.weight"][0] for stack in stacks)
    dim = dims[1]
    clip_size = (shapes[f"{offset}.0.weight"][1] - dim) // (dim + 2)
    inputs = (shapes[first][1] if upscale == 4 else dims[0], *(dim * k for k in (2, 3, 4, 5, 5)))
    window = (math.isqrt(shapes[tables[0]][0]) + 1) // 2
    window_frames = (shapes[tables[1]][0] // shapes[tables[0]][0] + 1) // 2
    return {
        "upscale": upscale,
        "clip_size": clip_size,
        "window_size": (window_frames, window, window),
        "num_blocks": tuple(
            _count(shapes, rf"{re.escape(s)}\.5\.(\d+)\.linear.weight") for s in stacks
        ),
        "depths": tuple(
            _count(shapes, rf"{re.escape(s)}\.5\.0\.residual_group\.blocks\.(\d+)\.norm1\.weight")
            for s in stacks
        ),
        "embed_dims": dims,
        "num_heads": tuple(shapes[table][1] for table in tables),
        "mlp_ratio": shapes[f"{layers[1]}.mlp.fc1.weight"][0] / dim,
        "inputconv_groups": tuple(n // shapes[c][1] for n, c in zip(inputs, convs, strict=True)),
        "deformable_groups": shapes[f"{offset}.10.weight"][0] // (2 * 9 * clip_size),
        "nonblind_denoising": upscale == 1 and shapes[first][1] == 4,
        "num_feat": shapes["conv_last.weight"][1],
    }


def _edvr(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    tsa = "fusion.feat_fusion.weight" in shapes
    fusion = "fusion.feat_fusion.weight" if tsa else "fusion.weight"
    offsets = "pcd_align.cas_dcnpack.conv_offset.weight"
    predeblur = "conv_1x1.weight" in shapes
    hr_first = "predeblur.stride_conv_hr1.weight" if predeblur else "conv_first_1.weight"
    if {fusion, offsets} - shapes.keys():
        return {}
    features = shapes[_MARKS["edvr"]][0]
    return {
        "num_feat": features,
        "num_frame": shapes[fusion][1] // features,
        "deformable_groups": shapes[offsets][0] // 27,
        "num_extract_block": _count(shapes, r"feature_extraction\.(\d+)\.conv1\.weight"),
        "num_reconstruct_block": _count(shapes, r"reconstruction\.(\d+)\.conv1\.weight"),
        "hr_in": hr_first in shapes,
        "with_predeblur": predeblur,
        "with_tsa": tsa,
    }


def _predeblur(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    return {
        "num_feat": shapes[_MARKS["predeblur"]][0],
        "hr_in": "predeblur.stride_conv_hr1.weight" in shapes,
    }


_FIELDS = {
    "rvrt": _rvrt,
    "basicvsr": _basicvsr,
    "edvr": _edvr,
    "predeblur": _predeblur,
    "spynet": lambda shapes: {},
}


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return len({m[1] for key in shapes if (m := re.fullmatch(pattern, key))})
