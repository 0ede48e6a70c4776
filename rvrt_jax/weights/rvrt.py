"""RVRT's keys, and the fields that its shapes show."""

import math
import re
from collections.abc import Mapping

import numpy as np

from rvrt_jax.weights import ffdnet, spynet
from rvrt_jax.weights.mapping import Buffer, Family, Row, Shapes, Table, count, module


def relative_position_index(window: tuple[int, int, int]) -> np.ndarray:
    """Returns which row of the bias table serves query q and key k: [n, n] int64, n tokens.

    Tokens are ordered (t, y, x); the row is the row-major index of query minus key position,
    shifted to begin at 0.
    """
    position = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij"), -1).reshape(-1, 3)
    offset = position[:, None] - position[None] + np.array(window) - 1
    t, y, x = np.moveaxis(offset, -1, 0).astype(np.int64)
    return (t * (2 * window[1] - 1) + y) * (2 * window[2] - 1) + x


def _table(fields: Mapping) -> Table:
    upscale, window = fields["upscale"], tuple(fields["window_size"])
    extract = "feat_extract.main" if upscale == 4 else "feat_extract.6.main"
    frame = relative_position_index((1, *window[1:]))
    stacks = (
        (extract, "extract", frame),
        ("backbone.{branch}.main", "{branch}/backbone", relative_position_index(window)),
        ("reconstruction.main", "reconstruct", frame),
    )
    rows = [*spynet.rows("spynet.", "spynet/")]
    buffers = [*spynet.buffers("spynet.")]
    if upscale == 1:
        rows += module("feat_extract.1", "downsample_0", "conv3d")
        rows += module("feat_extract.3", "downsample_1", "conv3d")
    if fields.get("denoise_first"):
        rows += ffdnet.rows("image_denoiser.", "image_denoiser/", num_conv=12)
    for key, path, index in stacks:
        rows += _swin_rows(key, path)
        attn = f"{key}.5.{{i}}.residual_group.blocks.{{j}}.attn"
        buffers.append(
            Buffer(f"{attn}.relative_position_index", f"{attn}.relative_position_bias_table", index)
        )
    for conv in range(6):  # the odd entries of PyTorch's list are LeakyReLUs
        rows += module(
            f"deform_align.{{branch}}.conv_offset.{2 * conv}",
            f"{{branch}}/align/offset_conv_{conv}",
            "conv3d",
        )
    for key, path in (
        ("proj_q.1", "q"),
        ("proj_k.1", "k"),
        ("proj_v.1", "v"),
        ("proj.1", "proj"),
        ("mlp.1.fc1", "mlp/fc1"),
        ("mlp.1.fc2", "mlp/fc2"),
    ):
        rows += module(f"deform_align.{{branch}}.{key}", f"{{branch}}/align/{path}", "dense")
    for key, path in (
        ("conv_before_upsampler.0", "conv_in"),
        ("upsampler.0", "conv_up_0"),
        ("upsampler.5", "conv_up_1"),
        ("upsampler.10", "conv_hr"),
        ("conv_last", "conv_out"),
    ):
        rows += module(key, f"upsampler/{path}", "conv3d")
    return Table(tuple(rows), tuple(buffers))


def _swin_rows(key: str, path: str) -> list[Row]:
    """Returns the rows of an input convolution followed by residual groups of Swin layers."""
    rstb, rstb_path = f"{key}.5.{{i}}", f"{path}/rstb_{{i}}"
    layer, layer_path = f"{rstb}.residual_group.blocks.{{j}}", f"{rstb_path}/layer_{{j}}"
    return [
        *module(f"{key}.1", f"{path}/conv", "conv3d"),
        *module(f"{key}.3", f"{path}/norm_in", "same"),
        *module(f"{key}.7", f"{path}/norm_out", "same"),
        *module(f"{rstb}.linear", f"{rstb_path}/linear", "dense"),
        *module(f"{layer}.norm1", f"{layer_path}/norm1", "same"),
        *module(f"{layer}.norm2", f"{layer_path}/norm2", "same"),
        *module(f"{layer}.attn.qkv_self", f"{layer_path}/attn/qkv", "dense"),
        *module(f"{layer}.attn.proj", f"{layer_path}/attn/proj", "dense"),
        *module(f"{layer}.mlp.fc1", f"{layer_path}/mlp/fc1", "dense"),
        *module(f"{layer}.mlp.fc2", f"{layer_path}/mlp/fc2", "dense"),
        Row(
            f"{layer}.attn.relative_position_bias_table",
            f"{layer_path}/attn/relative_position_bias",
            "same",
        ),
    ]


def _fields(shapes: Shapes) -> dict:
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
    seen = shapes[first][1]
    neighbours = upscale == 1 and seen > 7
    denoised = "image_denoiser.model.0.weight" in shapes
    found = {
        "upscale": upscale,
        "clip_size": clip_size,
        "window_size": (window_frames, window, window),
        "num_blocks": tuple(
            count(shapes, rf"{re.escape(s)}\.5\.(\d+)\.linear.weight") for s in stacks
        ),
        "depths": tuple(
            count(shapes, rf"{re.escape(s)}\.5\.0\.residual_group\.blocks\.(\d+)\.norm1\.weight")
            for s in stacks
        ),
        "embed_dims": dims,
        "num_heads": tuple(shapes[table][1] for table in tables),
        "mlp_ratio": shapes[f"{layers[1]}.mlp.fc1.weight"][0] / dim,
        "inputconv_groups": tuple(n // shapes[c][1] for n, c in zip(inputs, convs, strict=True)),
        "deformable_groups": shapes[f"{offset}.10.weight"][0] // (2 * 9 * clip_size),
        "nonblind_denoising": upscale == 1 and (seen - 10 * neighbours) % 3 == 1,
        "num_feat": shapes["conv_last.weight"][1],
    }
    # What published networks do not have is named only where it is there.
    if upscale == 1 and "feat_extract.3.weight" not in shapes:
        found["feature_stride"] = 2
    if denoised:
        found["denoise_first"] = True
    if neighbours:
        found["warped_neighbours"] = True
    return found


FAMILY = Family(mark="backbone.backward_1.main.1.weight", table=_table, fields=_fields)
