"""The state-dict keys of each model, beside its parameters' paths.

The keys are those of the published checkpoints. A model's table depends on the few fields that
change its keys (`upscale`) or its buffers (`window_size`).
"""

from collections.abc import Mapping

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.weights.mapping import Buffer, Row, Table, module


def table(name: str, fields: Mapping) -> Table:
    """Returns the table of model `name`, whose fields (with defaults filled in) are given.

    Raises UserError for a model without a table.
    """
    match name:
        case "spynet":
            return Table(_spynet_rows("", ""), _spynet_buffers(""))
        case "basicvsr":
            return Table(
                (*_spynet_rows("spynet.", "spynet/"), *_BASICVSR), _spynet_buffers("spynet.")
            )
        case "edvr":
            return Table(_EDVR)
        case "predeblur":
            return Table((*_PREDEBLUR, *module("conv_last", "conv_last", "conv2d")))
        case "rvrt":
            return _rvrt(fields["upscale"], tuple(fields["window_size"]))
    raise UserError(f"there is no key table for the model {name!r}.")


def relative_position_index(window: tuple[int, int, int]) -> np.ndarray:
    """Returns which row of the bias table serves query q and key k: [n, n] int64, n tokens.

    Tokens are ordered (t, y, x); the row is the row-major index of query minus key position,
    shifted to begin at 0.
    """
    position = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij"), -1).reshape(-1, 3)
    offset = position[:, None] - position[None] + np.array(window) - 1
    t, y, x = np.moveaxis(offset, -1, 0).astype(np.int64)
    return (t * (2 * window[1] - 1) + y) * (2 * window[2] - 1) + x


def _spynet_rows(key: str, path: str) -> tuple[Row, ...]:
    rows = []
    for conv in range(5):  # the odd entries of PyTorch's list are ReLUs
        rows += module(
            f"{key}basic_module.{{level}}.basic_module.{2 * conv}",
            f"{path}level_{{level}}/conv_{conv}",
            "conv2d",
        )
    return tuple(rows)


def _spynet_buffers(key: str) -> tuple[Buffer, ...]:
    first = f"{key}basic_module.0.basic_module.0.weight"
    constants = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    mean, std = constants.reshape(2, 1, 3, 1, 1)
    return Buffer(f"{key}mean", first, mean), Buffer(f"{key}std", first, std)


_BASICVSR = (
    *module("{direction}_trunk.main.0", "{direction}/conv", "conv2d"),
    *module("{direction}_trunk.main.2.{i}.conv1", "{direction}/block_{i}/conv1", "conv2d"),
    *module("{direction}_trunk.main.2.{i}.conv2", "{direction}/block_{i}/conv2", "conv2d"),
    *(
        row
        for name in ("fusion", "upconv1", "upconv2", "conv_hr", "conv_last")
        for row in module(name, name, "conv2d")
    ),
)


_PREDEBLUR = tuple(
    row
    for key, path in (
        *((name, name) for name in ("conv_first", "stride_conv_hr{i}", "stride_conv_l{i}")),
        ("resblock_l3.conv{n}", "resblock_l3/conv{n}"),
        ("resblock_l2_{i}.conv{n}", "resblock_l2_{i}/conv{n}"),
        ("resblock_l1.{i}.conv{n}", "resblock_l1_{i}/conv{n}"),
    )
    for row in module(f"predeblur.{key}", f"predeblur/{path}", "conv2d")
)

# The keys of BasicSR; rvrt_jax.weights.edvr turns the others into them. `conv_first_1` to
# `conv_first_3` are of the 2019 code alone: BasicSR cannot express that network.
_EDVR = (
    *_PREDEBLUR,
    *(
        row
        for key, path in (
            *(
                (name, name)
                for name in ("conv_first", "conv_first_{i}", "conv_1x1", "conv_l{i}_{n}")
            ),
            ("feature_extraction.{i}.conv{n}", "feature_extraction_{i}/conv{n}"),
            ("pcd_align.offset_conv{n}.l{i}", "pcd_align/offset_conv{n}_l{i}"),
            ("pcd_align.dcn_pack.l{i}", "pcd_align/dcn_pack_l{i}"),
            ("pcd_align.dcn_pack.l{i}.conv_offset", "pcd_align/dcn_pack_l{i}/conv_offset"),
            ("pcd_align.feat_conv.l{i}", "pcd_align/feat_conv_l{i}"),
            ("pcd_align.cas_offset_conv{n}", "pcd_align/cas_offset_conv{n}"),
            ("pcd_align.cas_dcnpack", "pcd_align/cas_dcnpack"),
            ("pcd_align.cas_dcnpack.conv_offset", "pcd_align/cas_dcnpack/conv_offset"),
            ("fusion", "fusion"),  # without TSA
            *(
                (f"fusion.{name}", f"fusion/{name}")
                for name in (
                    "temporal_attn{i}",
                    "feat_fusion",
                    "spatial_attn{i}",
                    "spatial_attn_l{i}",
                    "spatial_attn_add{i}",
                )
            ),
            ("reconstruction.{i}.conv{n}", "reconstruction_{i}/conv{n}"),
            *((name, name) for name in ("upconv{i}", "conv_hr", "conv_last")),
        )
        for row in module(key, path, "conv2d")
    ),
)


def _rvrt(upscale: int, window: tuple[int, int, int]) -> Table:
    extract = "feat_extract.main" if upscale == 4 else "feat_extract.6.main"
    frame = relative_position_index((1, *window[1:]))
    stacks = (
        (extract, "extract", frame),
        ("backbone.{branch}.main", "{branch}/backbone", relative_position_index(window)),
        ("reconstruction.main", "reconstruct", frame),
    )
    rows = [*_spynet_rows("spynet.", "spynet/")]
    buffers = [*_spynet_buffers("spynet.")]
    if upscale == 1:
        rows += module("feat_extract.1", "downsample_0", "conv3d")
        rows += module("feat_extract.3", "downsample_1", "conv3d")
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
