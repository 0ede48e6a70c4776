"""EDVR against all golden files, too many for the repository, where the folder of them is at hand.

RVRT_GOLDENS=../shared/golden python -m pytest tests/models/test_shared_goldens.py
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import goldens

from rvrt_jax.models import edvr, pcd
from rvrt_jax.models.layers import leaky_relu
from rvrt_jax.weights import families, mapping
from rvrt_jax.weights import load as loading

FOLDER = os.environ.get("RVRT_GOLDENS")

pytestmark = pytest.mark.skipif(FOLDER is None, reason="RVRT_GOLDENS names no folder")


def load(name):
    with np.load(Path(str(FOLDER)) / "edvr" / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, {k.removeprefix("param/"): v for k, v in arrays.items() if k[:6] == "param/"}


def close(ours, expected):
    # The golden runs were in float64; float32 rounding through the network stays below 1e-5.
    expected = goldens.channels_last(expected)
    np.testing.assert_allclose(np.asarray(ours).reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "a_x4_tsa",
        "b_x4_wotsa",
        "c_hrin_predeblur",
        "d_7f_predeblur",
        "f_stage2_hrin_no_predeblur_oldkeys",
    ],
)
def test_networks(name):
    arrays, state = load(name)
    fields = families.detect(state)
    assert fields is not None
    model, params = loading.from_state_dict(fields.pop("name"), state, **fields)

    @jax.jit
    def both(params, video):
        out, sowed = model.apply({"params": params}, video, mutable=["intermediates"])
        pyramid = model.apply({"params": params}, video[:, model.centre], method="features")
        return out[:, 0], sowed["intermediates"], pyramid

    out, sowed, pyramid = both(params, goldens.channels_last(arrays["input"]))
    close(out, arrays["output"])
    for key in ("aligned", "recon"):
        close(sowed[key][0], arrays[key])
    for level, features in enumerate(pyramid, 1):
        if f"feat_l{level}" in arrays:
            close(features, arrays[f"feat_l{level}"][:, model.centre])


def module(name, prefix, network, *inputs):
    """Runs a part of EDVR; returns the golden arrays, its result and that of each layer in it."""
    arrays, state = load(name)
    params = {}
    for key, value in state.items():
        path, layout = mapping.to_path(families.table("edvr", {}), f"{prefix}.{key}")
        params[path.split("/", 1)[1]] = mapping.LAYOUTS[layout].to_flax(value)
    inputs = jax.tree.map(lambda key: goldens.channels_last(arrays[key]), inputs)

    @jax.jit
    def run(params, *inputs):
        return network.apply(
            {"params": params}, *inputs, capture_intermediates=True, mutable=["intermediates"]
        )

    out, sowed = run(mapping.nest(params), *inputs)
    return arrays, out, sowed["intermediates"]


def check_layers(arrays, sowed):
    """Compares what each layer gave before ("_raw") or after its activation ("_act")."""
    checked = 0
    for key, expected in arrays.items():
        layer, _, kind = key.removeprefix("mid/").rpartition("_")
        layer = layer.replace(".", "_")
        if not key.startswith("mid/") or kind not in ("raw", "act") or layer not in sowed:
            continue
        out = sowed[layer]["__call__"][0]
        out = out[0] if isinstance(out, tuple) else out
        close(leaky_relu(out) if kind == "act" else out, expected)
        checked += 1
    assert checked >= 6


def test_pcd_alignment():
    pyramids = [tuple(f"{which}_l{level}" for level in (1, 2, 3)) for which in ("nbr", "ref")]
    arrays, (out, _), sowed = module("op_pcd", "pcd_align", pcd.PcdAlign(groups=4), *pyramids)
    close(out, arrays["output"])
    check_layers(arrays, sowed)
    for level in ("l1", "l2", "l3", "cas"):
        pack = "cas_dcnpack" if level == "cas" else f"dcn_pack_{level}"
        raw = sowed[pack]["conv_offset"]["__call__"][0]
        close(raw[..., :72], arrays[f"mid/{level}_offset"])
        close(jax.nn.sigmoid(raw[..., 72:]), arrays[f"mid/{level}_mask"])


@pytest.mark.parametrize("name", ["op_tsa", "op_tsa_c1"])
def test_tsa_fusion(name):
    centre = json.loads(str(load(name)[0]["meta_json"]))["center_frame_idx"]
    arrays, out, sowed = module(name, "fusion", edvr.TsaFusion(centre), "input")
    close(out, arrays["output"])
    check_layers(arrays, sowed)


def test_predeblur():
    network = edvr.PreDeblur(16, hr_in=True)
    arrays, out, sowed = module("op_predeblur_hrin", "predeblur", network, "input")
    close(out, arrays["output"])
    check_layers(arrays, sowed)
