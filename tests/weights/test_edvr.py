"""EDVR's keys in their three styles: BasicSR's, the 2019 code's, mmagic's."""

import json

import numpy as np
import pytest
from helpers import goldens

from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.models import edvr
from rvrt_jax.weights import catalogue, families, fetch, mapping, pth
from rvrt_jax.weights import edvr as edvr_weights
from rvrt_jax.weights import load as loading

FOLDER = goldens.GOLDEN / "edvr"
FILES = json.loads((FOLDER / "variants.json").read_text())  # every key and shape as published
MAPS = json.loads((FOLDER / "key_maps.json").read_text())  # from BasicSR's keys to the others
OLD_SR_STAGE_2 = "EDVR_Stage2_SR_REDS_oldkeys"
VARIANT = {  # which variant a file fills
    "EDVR_M_x4_SR_REDS": "edvr_m",
    "EDVR_M_woTSA_x4_SR_REDS": "edvr_m_wotsa",
    "EDVR_L_x4_SR_REDS": "edvr_l",
    "EDVR_L_woTSA_x4_SR_REDS": "edvr_l_wotsa",
    "EDVR_L_x4_SR_Vimeo90K": "edvr_l_vimeo",
    "EDVR_L_x4_SRblur_REDS": "edvr_l_srblur",
    "EDVR_L_deblur_REDS": "edvr_l_deblur",
    "EDVR_Stage2_deblur_or_SRblur_or_deblurcomp_REDS": "edvr_stage2",
    OLD_SR_STAGE_2: "edvr_sr_stage2",
    "EDVR_M_x4_SR_REDS_oldkeys": "edvr_m",
    "EDVR_L_deblur_REDS_oldkeys": "edvr_l_deblur",
    "EDVR_M_x4_SR_REDS_mmagickeys": "edvr_m",
}

PARAMETERS = {
    "edvr_m": 3_300_131,
    "edvr_m_wotsa": 2_996_259,
    "edvr_l": 20_633_827,
    "edvr_l_wotsa": 19_419_875,
    "edvr_l_vimeo": 20_699_363,
    "edvr_l_srblur": 23_306_851,
    "edvr_l_deblur": 23_602_019,
    "edvr_l_deblurcomp": 23_602_019,
    "edvr_stage2": 17_698_659,
    "edvr_sr_stage2": 15_025_635,
}


def made_up(file):
    """A state dict with the keys and shapes of a published file; each array tells its key."""
    return {
        key: np.broadcast_to(np.float32(i), shape)
        for i, (key, shape) in enumerate(FILES[file]["state_dict"].items())
    }


def test_every_file_is_tested():
    assert VARIANT.keys() == FILES.keys()
    assert {*VARIANT.values(), "edvr_l_deblurcomp"} == edvr.VARIANTS.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("variant", edvr.VARIANTS)
def test_the_networks_have_as_many_parameters_as_published(variant):
    shapes = loading._shapes(models.build(variant))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == PARAMETERS[variant]


@pytest.mark.parametrize("file", FILES)
def test_every_published_file_fills_its_variant(file):
    state = made_up(file)
    model, params = loading.from_state_dict(VARIANT[file], state)
    flat = mapping.flatten(params)
    assert sum(array.size for array in flat.values()) == FILES[file]["parameters"]
    assert len(flat) == FILES[file]["tensors"]
    assert loading._variant(state, file) == {"name": VARIANT[file]}
    back = loading.to_state_dict(model, params)
    for key, array in edvr_weights.canonical(state).items():
        assert (back[key] == array).all() and back[key].shape == array.shape
    assert back.keys() == edvr_weights.canonical(state).keys()


@pytest.mark.parametrize("name", MAPS)
def test_keys_of_the_other_styles_become_the_published_counterparts(name):
    """Each array carries its own number, so that crossed names would show."""
    numbered = {ours: np.float32(i) for i, ours in enumerate(MAPS[name])}
    theirs = {their: numbered[ours] for ours, their in MAPS[name].items()}
    assert edvr_weights.canonical(theirs) == numbered
    assert edvr_weights.canonical(numbered) == numbered


@pytest.mark.parametrize("prefix", ["generator.", "generator.module.", "module.generator."])
def test_prefixes_and_counters_of_mmagic(prefix):
    pairs = MAPS["new_to_mmagic_sr"]
    theirs = {prefix + their: np.zeros(1) for their in pairs.values()}
    theirs |= {"step_counter": np.zeros(1)}
    assert edvr_weights.canonical(theirs).keys() == pairs.keys()


def test_other_models_keys_stay_as_they_are():
    state = {"module.conv_last.weight": np.zeros(1), "spynet.mean": np.zeros(1)}
    assert edvr_weights.canonical(state) == state


def test_a_key_too_many_is_told_under_its_name():
    state = made_up("EDVR_M_x4_SR_REDS_oldkeys")
    extra = {"conv_hr.weight": np.zeros((64, 64, 3, 3), np.float32), "odd": np.zeros(1)}
    with pytest.raises(UserError) as caught:
        loading.from_state_dict("edvr_m", state | extra)
    assert "0 missing, 2 unexpected, 0 misshapen" in str(caught.value)
    assert "unexpected: odd" in str(caught.value)


def test_a_field_that_does_not_fit_is_named():
    with pytest.raises(UserError, match=r"build the model with with_tsa=True \(here False\)"):
        loading.from_state_dict("edvr_m_wotsa", made_up("EDVR_M_x4_SR_REDS"))
    with pytest.raises(UserError, match=r"with_tsa=False \(here True\)\."):
        loading.from_state_dict("edvr_m", made_up("EDVR_M_woTSA_x4_SR_REDS"))
    with pytest.raises(UserError, match=r"num_feat=128.*num_reconstruct_block=20.*hr_in=True"):
        loading.from_state_dict("edvr_m", made_up(OLD_SR_STAGE_2))


def test_a_damaged_file_is_still_known_for_what_it_is():
    state = made_up("EDVR_M_x4_SR_REDS_oldkeys")
    del state["tsa_fusion.fea_fusion.weight"]
    assert families.detect(state) == {"name": "edvr"}


def test_wrapped_and_bare_files(tmp_path):
    """`params` around BasicSR's keys; the 2019 files are bare."""
    fields = {"num_feat": 4, "deformable_groups": 1, "num_frame": 3}
    fields |= {"num_extract_block": 1, "num_reconstruct_block": 1}
    model = models.build("edvr", **fields)
    state = goldens.state_dict(families.table("edvr", {}), goldens.parameter_shapes(model), 3)
    pth.write(tmp_path / "x.pth", state)
    again, params = loading.load(tmp_path / "x.pth", "edvr", **fields)
    assert again == model
    np.testing.assert_array_equal(
        params["pcd_align"]["dcn_pack_l3"]["kernel"],
        state["pcd_align.dcn_pack.l3.weight"].transpose(2, 3, 1, 0),
    )


def test_weights_have_to_be_fetched_by_hand_and_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError) as caught:
        fetch.get("edvr_m_reds")
    advice = str(caught.value)
    assert "EDVR_M_x4_SR_REDS_official-32075921.pth" in advice
    assert "1dd6aFj-5w2v08VJTq5mS9OFsD-wALYD6" in advice and "--from" in advice
    file = tmp_path / "EDVR_M_x4_SR_REDS_official-32075921.pth"
    pth.write(file, made_up("EDVR_M_x4_SR_REDS"))
    with pytest.raises(UserError, match="has SHA-256 .* is 32075921"):
        fetch.get("edvr_m_reds", local=file)
    known = catalogue.WEIGHTS["edvr_m_reds"].__dict__ | {"sha256": None}
    monkeypatch.setitem(catalogue.WEIGHTS, "edvr_m_reds", catalogue.Weight(**known))
    assert fetch.get("edvr_m_reds", local=file).name == file.name
    loaded = loading.load_described("edvr_m_reds")
    assert loaded.license == "Apache-2.0" and loaded.model == models.build("edvr_m")


def test_all_seven_published_weights_are_listed():
    found = {n: w for n, w in catalogue.WEIGHTS.items() if w.model.startswith("edvr")}
    assert len(found) == 7
    for weight in found.values():
        assert weight.model in edvr.VARIANTS
        assert weight.file.endswith(f"-{weight.sha256}.pth")
