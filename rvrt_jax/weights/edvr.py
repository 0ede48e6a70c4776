"""EDVR's and PreDeblur's keys in three styles, and the fields that their shapes show.

The key tables have BasicSR's style. The 2019 code's names differ in every part, and its two
temporal convolutions are crossed: the shapes would fit either way. mmagic's have a prefix, one
level more under most convolutions, and buffers.
"""

from collections.abc import Mapping

import numpy as np

from rvrt_jax.weights.mapping import Family, Shapes, Table, count, module, translate

_MARK = "pcd_align.offset_conv1.l1.weight"
_PREDEBLUR_MARK = "predeblur.stride_conv_l2.weight"  # EDVR may have it too, and comes first

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

# The keys of BasicSR; `canonical` turns the others into them. `conv_first_1` to
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

# (key in that style, BasicSR's), without .weight and .bias. What is not here is the same in both.
_EDVR_2019 = (
    ("pre_deblur.conv_first_1", "predeblur.conv_first"),
    ("pre_deblur.conv_first", "predeblur.conv_first"),
    ("pre_deblur.conv_first_2", "predeblur.stride_conv_hr1"),
    ("pre_deblur.conv_first_3", "predeblur.stride_conv_hr2"),
    ("pre_deblur.deblur_L{i}_conv", "predeblur.stride_conv_l{i}"),
    ("pre_deblur.RB_L3_1.conv{n}", "predeblur.resblock_l3.conv{n}"),
    ("pre_deblur.RB_L2_{i}.conv{n}", "predeblur.resblock_l2_{i}.conv{n}"),
    *(
        (f"pre_deblur.RB_L1_{i + 1}.conv{{n}}", f"predeblur.resblock_l1.{i}.conv{{n}}")
        for i in range(5)
    ),
    ("fea_L{i}_conv{n}", "conv_l{i}_{n}"),
    ("pcd_align.L{i}_offset_conv{n}", "pcd_align.offset_conv{n}.l{i}"),
    ("pcd_align.L{i}_fea_conv", "pcd_align.feat_conv.l{i}"),
    ("pcd_align.L{i}_dcnpack", "pcd_align.dcn_pack.l{i}"),
    ("pcd_align.L{i}_dcnpack.conv_offset_mask", "pcd_align.dcn_pack.l{i}.conv_offset"),
    ("pcd_align.cas_dcnpack.conv_offset_mask", "pcd_align.cas_dcnpack.conv_offset"),
    ("tsa_fusion", "fusion"),
    ("tsa_fusion.tAtt_2", "fusion.temporal_attn1"),
    ("tsa_fusion.tAtt_1", "fusion.temporal_attn2"),
    ("tsa_fusion.fea_fusion", "fusion.feat_fusion"),
    ("tsa_fusion.sAtt_{i}", "fusion.spatial_attn{i}"),
    ("tsa_fusion.sAtt_L{i}", "fusion.spatial_attn_l{i}"),
    ("tsa_fusion.sAtt_add_{i}", "fusion.spatial_attn_add{i}"),
    ("recon_trunk.{i}.conv{n}", "reconstruction.{i}.conv{n}"),
    ("HRconv", "conv_hr"),
)
_MMAGIC = (
    ("feat_l{i}_conv{n}.conv", "conv_l{i}_{n}"),
    ("pcd_alignment.offset_conv{n}.l{i}.conv", "pcd_align.offset_conv{n}.l{i}"),
    ("pcd_alignment.feat_conv.l{i}.conv", "pcd_align.feat_conv.l{i}"),
    ("pcd_alignment.dcn_pack.l{i}", "pcd_align.dcn_pack.l{i}"),
    ("pcd_alignment.dcn_pack.l{i}.conv_offset", "pcd_align.dcn_pack.l{i}.conv_offset"),
    ("pcd_alignment.cas_offset_conv{n}.conv", "pcd_align.cas_offset_conv{n}"),
    ("pcd_alignment.cas_dcnpack", "pcd_align.cas_dcnpack"),
    ("pcd_alignment.cas_dcnpack.conv_offset", "pcd_align.cas_dcnpack.conv_offset"),
    ("fusion.feat_fusion.conv", "fusion.feat_fusion"),
    ("fusion.spatial_attn{i}.conv", "fusion.spatial_attn{i}"),
    ("fusion.spatial_attn_l{i}.conv", "fusion.spatial_attn_l{i}"),
    ("fusion.spatial_attn_add1.conv", "fusion.spatial_attn_add1"),
    ("upsample{i}.upsample_conv", "upconv{i}"),
)
_PREFIXES = ("module.", "generator.")  # torch's DataParallel, and mmagic's one level above
_NO_WEIGHTS = ("step_counter",)  # of mmagic


def canonical(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the state dict under the keys of the key tables, whatever EDVR style it has.

    Keys of no style known here, those of other models included, stay as they are.
    """
    mmagic = any(key.endswith("pcd_alignment.cas_dcnpack.weight") for key in state)
    if mmagic:
        state = {key: array for key, array in state.items() if key not in _NO_WEIGHTS}
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {key.removeprefix(prefix): array for key, array in state.items()}
        if not state:
            break
    if mmagic:
        return _renamed(state, _MMAGIC)
    if "recon_trunk.0.conv1.weight" in state or "pcd_align.L1_offset_conv1.weight" in state:
        return _renamed(state, _EDVR_2019)
    return dict(state)


def _renamed(
    state: Mapping[str, np.ndarray], pairs: tuple[tuple[str, str], ...]
) -> dict[str, np.ndarray]:
    triples = [(theirs, ours, "") for theirs, ours in pairs]
    result = {}
    for key, array in state.items():
        stem, dot, leaf = key.rpartition(".")
        new, _ = translate(triples, stem)
        # A key that would become one that is there already keeps its name; the error names it.
        name = key if new is None else f"{new}{dot}{leaf}"
        result[key if name in state or name in result else name] = array
    return result


def _edvr_fields(shapes: Shapes) -> dict:
    tsa = "fusion.feat_fusion.weight" in shapes
    fusion = "fusion.feat_fusion.weight" if tsa else "fusion.weight"
    offsets = "pcd_align.cas_dcnpack.conv_offset.weight"
    predeblur = "conv_1x1.weight" in shapes
    hr_first = "predeblur.stride_conv_hr1.weight" if predeblur else "conv_first_1.weight"
    if {fusion, offsets} - shapes.keys():
        return {}
    features = shapes[_MARK][0]
    return {
        "num_feat": features,
        "num_frame": shapes[fusion][1] // features,
        "deformable_groups": shapes[offsets][0] // 27,
        "num_extract_block": count(shapes, r"feature_extraction\.(\d+)\.conv1\.weight"),
        "num_reconstruct_block": count(shapes, r"reconstruction\.(\d+)\.conv1\.weight"),
        "hr_in": hr_first in shapes,
        "with_predeblur": predeblur,
        "with_tsa": tsa,
    }


def _predeblur_fields(shapes: Shapes) -> dict:
    return {
        "num_feat": shapes[_PREDEBLUR_MARK][0],
        "hr_in": "predeblur.stride_conv_hr1.weight" in shapes,
    }


FAMILY = Family(
    mark=_MARK, table=lambda fields: Table(_EDVR), fields=_edvr_fields, shown_by_shapes=True
)
PREDEBLUR = Family(
    mark=_PREDEBLUR_MARK,
    table=lambda fields: Table((*_PREDEBLUR, *module("conv_last", "conv_last", "conv2d"))),
    fields=_predeblur_fields,
    shown_by_shapes=True,
)
