import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from rvrt_jax.errors import UserError
from rvrt_jax.weights import families, mapping
from rvrt_jax.weights import rvrt as rvrt_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "convert" / "variants.json"
VARIANTS = json.loads(GOLDEN.read_text())  # every key and shape of the published checkpoints
SR, X1 = ({"upscale": upscale, "window_size": (2, 8, 8)} for upscale in (4, 1))

# key, path, PyTorch shape, Flax shape; one of each kind, written down by hand.
RVRT_PAIRS = [
    ("spynet.basic_module.5.basic_module.8.weight", "spynet/level_5/conv_4/kernel", (7, 7, 16, 2)),
    ("spynet.basic_module.0.basic_module.2.bias", "spynet/level_0/conv_1/bias", (64,)),
    ("backbone.backward_1.main.1.weight", "backward_1/backbone/conv/kernel", (3, 3, 288, 144)),
    ("backbone.forward_2.main.3.weight", "forward_2/backbone/norm_in/scale", (144,)),
    ("backbone.forward_2.main.7.bias", "forward_2/backbone/norm_out/bias", (144,)),
    ("reconstruction.main.5.0.linear.weight", "reconstruct/rstb_0/linear/kernel", (144, 144)),
    (
        "backbone.backward_2.main.5.1.residual_group.blocks.0.norm2.bias",
        "backward_2/backbone/rstb_1/layer_0/norm2/bias",
        (144,),
    ),
    (
        "backbone.forward_1.main.5.1.residual_group.blocks.1.attn.qkv_self.weight",
        "forward_1/backbone/rstb_1/layer_1/attn/qkv/kernel",
        (144, 432),
    ),
    (
        "backbone.forward_1.main.5.0.residual_group.blocks.1.attn.relative_position_bias_table",
        "forward_1/backbone/rstb_0/layer_1/attn/relative_position_bias",
        (675, 6),
    ),
    (
        "reconstruction.main.5.0.residual_group.blocks.1.mlp.fc2.weight",
        "reconstruct/rstb_0/layer_1/mlp/fc2/kernel",
        (288, 144),
    ),
    (
        "deform_align.backward_1.conv_offset.0.weight",
        "backward_1/align/offset_conv_0/kernel",
        (1, 1, 436, 64),
    ),
    (
        "deform_align.forward_2.conv_offset.10.weight",
        "forward_2/align/offset_conv_5/kernel",
        (1, 1, 64, 432),
    ),
    ("deform_align.forward_1.proj_v.1.weight", "forward_1/align/v/kernel", (144, 288)),
    ("deform_align.forward_1.proj.1.weight", "forward_1/align/proj/kernel", (288, 144)),
    ("deform_align.forward_1.mlp.1.fc1.bias", "forward_1/align/mlp/fc1/bias", (288,)),
    ("conv_before_upsampler.0.weight", "upsampler/conv_in/kernel", (1, 1, 144, 64)),
    ("upsampler.0.weight", "upsampler/conv_up_0/kernel", (3, 3, 64, 256)),
    ("upsampler.5.bias", "upsampler/conv_up_1/bias", (256,)),
    ("upsampler.10.weight", "upsampler/conv_hr/kernel", (3, 3, 64, 64)),
    ("conv_last.weight", "upsampler/conv_out/kernel", (3, 3, 64, 3)),
    ("feat_extract.main.1.weight", "extract/conv/kernel", (3, 3, 3, 144)),
    (
        "feat_extract.main.5.0.residual_group.blocks.0.attn.proj.bias",
        "extract/rstb_0/layer_0/attn/proj/bias",
        (144,),
    ),
]
X1_PAIRS = [
    ("feat_extract.1.weight", "downsample_0/kernel", (3, 3, 4, 192)),
    ("feat_extract.3.bias", "downsample_1/bias", (192,)),
    ("feat_extract.6.main.1.weight", "extract/conv/kernel", (3, 3, 192, 192)),
    ("feat_extract.6.main.3.weight", "extract/norm_in/scale", (192,)),
    ("backbone.backward_2.main.1.weight", "backward_2/backbone/conv/kernel", (3, 3, 128, 192)),
]
BASICVSR_PAIRS = [
    ("backward_trunk.main.0.weight", "backward/conv/kernel", (64, 67, 3, 3)),
    ("forward_trunk.main.2.29.conv2.weight", "forward/block_29/conv2/kernel", (64, 64, 3, 3)),
    ("backward_trunk.main.2.0.conv1.bias", "backward/block_0/conv1/bias", (64,)),
    ("fusion.weight", "fusion/kernel", (64, 128, 1, 1)),
    ("upconv2.weight", "upconv2/kernel", (256, 64, 3, 3)),
    ("conv_last.bias", "conv_last/bias", (3,)),
    ("spynet.basic_module.3.basic_module.4.weight", "spynet/level_3/conv_2/kernel", None),
]


def made_up(variant):
    """A full state dict of the right shapes, buffers with their true values."""
    state = {}
    for i, (key, shape) in enumerate(VARIANTS[variant]["state_dict"].items()):
        state[key] = np.random.default_rng(i).random(shape, np.float32)
    upscale = VARIANTS[variant]["config"]["upscale"]
    return state | mapping.buffers(families.table("rvrt", SR if upscale == 4 else X1), state)


def flax_shapes(table, state):
    """The shapes of the tree that the table itself makes of a state dict."""
    weights = mapping.without_buffers(table, state)
    pairs = [mapping.to_path(table, key) for key in weights]
    return {
        path: mapping.LAYOUTS[layout].to_flax(array).shape
        for (path, layout), array in zip(pairs, weights.values(), strict=True)
    }


@pytest.mark.parametrize(
    ("variant", "fields", "pairs"),
    [("rvrt_sr", SR, RVRT_PAIRS), ("rvrt_denoise", X1, X1_PAIRS)],
)
def test_rvrt_keys_go_where_they_should(variant, fields, pairs):
    table = families.table("rvrt", fields)
    state = made_up(variant)
    shapes = flax_shapes(table, state)
    for key, path, shape in pairs:
        assert mapping.to_path(table, key)[0] == path
        assert shapes[path] == shape
        assert list(state[key].shape) == VARIANTS[variant]["state_dict"][key]


def test_basicvsr_keys_go_where_they_should():
    table = families.table("basicvsr", {})
    for key, path, shape in BASICVSR_PAIRS:
        assert mapping.to_path(table, key)[0] == path
        if shape is not None:
            array = np.zeros(shape, np.float32)
            back = mapping.to_state(
                table, {path: array.T if len(shape) == 1 else array.transpose(2, 3, 1, 0)}
            )
            assert back[key].shape == shape


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_published_key_fills_one_parameter_and_comes_back(variant):
    state = made_up(variant)
    table = families.table("rvrt", SR if variant == "rvrt_sr" else X1)
    shapes = flax_shapes(table, state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = mapping.to_params(table, state, shapes)
    assert sum(array.size for array in params.values()) == VARIANTS[variant]["parameters"]
    back = mapping.to_state(table, params)
    assert back.keys() == state.keys()
    for key, array in state.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array)


def test_layouts_by_index():
    rng = np.random.RandomState(0)
    table = families.table("rvrt", SR)
    conv3d = rng.standard_normal((4, 3, 1, 2, 5)).astype(np.float32)
    conv2d = rng.standard_normal((4, 3, 2, 5)).astype(np.float32)
    dense = rng.standard_normal((4, 3)).astype(np.float32)
    state = {
        "conv_last.weight": conv3d,
        "spynet.basic_module.0.basic_module.0.weight": conv2d,
        "deform_align.forward_1.proj_q.1.weight": dense,
    }
    params = mapping.to_params(table, state, flax_shapes(table, state))
    for o, i, y, x in itertools.product(range(4), range(3), range(2), range(5)):
        assert params["upsampler/conv_out/kernel"][y, x, i, o] == conv3d[o, i, 0, y, x]
        assert params["spynet/level_0/conv_0/kernel"][y, x, i, o] == conv2d[o, i, y, x]
        assert params["forward_1/align/q/kernel"][i, o] == dense[o, i]


def test_relative_position_index_by_counting():
    window = (2, 3, 4)
    tokens = list(itertools.product(*map(range, window)))
    rows = list(itertools.product(*[range(-(w - 1), w) for w in window]))
    index = rvrt_weights.relative_position_index(window)
    assert index.shape == (24, 24) and index.dtype == np.int64
    for (a, query), (b, key) in itertools.product(enumerate(tokens), enumerate(tokens)):
        difference = tuple(q - k for q, k in zip(query, key, strict=True))
        assert index[a, b] == rows.index(difference)


def test_all_that_is_wrong_is_in_one_error():
    state = made_up("rvrt_sr")
    table = families.table("rvrt", SR)
    shapes = flax_shapes(table, state)
    del state["conv_last.bias"], state["upsampler.5.weight"]
    state["extra.weight"] = np.zeros(3, np.float32)
    state["feat_extract.6.main.1.weight"] = np.zeros(3, np.float32)
    state["fc.relative_position_index"] = np.zeros((4, 4))
    state["reconstruction.main.1.weight"] = np.zeros((144, 720, 3, 3), np.float32)
    index = "reconstruction.main.5.0.residual_group.blocks.0.attn.relative_position_index"
    state[index] = np.zeros((9, 9), np.int64)
    with pytest.raises(UserError) as caught:
        mapping.to_params(table, state, shapes)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the keys do not fit the model: 2 missing, 3 unexpected, 2 misshapen."
    assert {line.strip() for line in lines[1:]} == {
        "missing: conv_last.bias",
        "missing: upsampler.5.weight",
        "unexpected: extra.weight",
        "unexpected: feat_extract.6.main.1.weight",
        "unexpected: fc.relative_position_index",
        f"misshapen: {index}: (9, 9), expected (64, 64)",
        "misshapen: reconstruction.main.1.weight: (144, 720, 3, 3), expected (144, 720, 1, 3, 3)",
    }


def test_parameter_filled_twice_is_an_error():
    rows = (*mapping.module("a", "x", "dense"), *mapping.module("b", "x", "dense"))
    arrays = {
        f"{k}.{leaf}": np.zeros((2,) * n) for k in "ab" for leaf, n in [("weight", 2), ("bias", 1)]
    }
    with pytest.raises(
        UserError, match=r"0 missing, 2 unexpected.*\n.*b.weight: x/kernel is filled by a.weight"
    ):
        mapping.to_params(mapping.Table(rows), arrays, {"x/kernel": (2, 2), "x/bias": (2,)})


def test_buffers_may_be_absent_and_odd_ones_are_told():
    state = made_up("rvrt_deblur")
    table = families.table("rvrt", X1)
    shapes = flax_shapes(table, state)
    bare = mapping.without_buffers(table, state)
    assert len(state) - len(bare) == 22  # 20 attention layers, spynet.mean, spynet.std
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = mapping.to_params(table, bare, shapes)
        half = {key: array.astype(np.float16) for key, array in state.items() if "spynet" in key}
        mapping.to_params(table, state | half, shapes)
    assert params.keys() == shapes.keys()
    with pytest.warns(UserWarning, match=r"1 buffers .*: spynet\.std"):
        mapping.to_params(table, state | {"spynet.std": np.ones((1, 3, 1, 1))}, shapes)


def test_unknown_paths_and_shapes_are_refused():
    table = families.table("basicvsr", {})
    with pytest.raises(UserError, match="2 parameters have no key"):
        mapping.to_state(table, {"nonsense/kernel": np.zeros(1), "fusion/scale": np.zeros(1)})
    shapes = {"a/kernel": (2, 2), "a/bias": (2,)}
    with pytest.raises(UserError, match="1 missing, 1 unexpected, 1 misshapen"):
        mapping.check_shapes({"a/kernel": np.zeros((2, 3)), "b": np.zeros(1)}, shapes)
    with pytest.raises(UserError, match="no key table for the model 'vrt'"):
        families.table("vrt", {})


def test_nest_and_flatten_are_inverse():
    flat = {"a/b/c": np.zeros(1), "a/b/d": np.zeros(2), "e": np.zeros(3)}
    tree = mapping.nest(flat)
    assert tree == {"a": {"b": {"c": flat["a/b/c"], "d": flat["a/b/d"]}}, "e": flat["e"]}
    assert list(mapping.flatten(tree).items()) == list(flat.items())


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_detect_reads_the_published_configs_off_the_shapes(variant):
    seen = families.detect(made_up(variant))
    config = VARIANTS[variant]["config"]
    assert seen["name"] == "rvrt"
    assert seen["mlp_ratio"] == 2 and seen["num_feat"] == 64
    assert seen["nonblind_denoising"] == (variant == "rvrt_denoise")
    for field in ("upscale", "clip_size", "deformable_groups"):
        assert seen[field] == config[field], field
    for field in (
        "window_size",
        "num_blocks",
        "depths",
        "embed_dims",
        "num_heads",
        "inputconv_groups",
    ):
        assert list(seen[field]) == config[field], field


def test_detect_of_damaged_and_foreign_state_dicts():
    state = made_up("rvrt_sr")
    del state["conv_last.weight"]
    assert families.detect(state) == {"name": "rvrt"}
    assert families.detect({"layer1.0.conv1.weight": np.zeros(1)}) is None
