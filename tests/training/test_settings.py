"""Which options a recipe may have, and the groups of parameters that follow from them."""

import importlib
from pathlib import Path

import jax
import optax
import pytest

from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.training import optim
from rvrt_jax.training.settings import Settings

ROOT = Path(__file__).parents[2]
TINY = {"num_feat": 4, "num_frame": 3, "deformable_groups": 2}
TINY |= {"num_extract_block": 1, "num_reconstruct_block": 1}
NETWORKS = {
    "rvrt": models.build("rvrt"),
    "basicvsr": models.build("basicvsr"),
    "edvr": models.build("edvr", **TINY),
    "edvr_wotsa": models.build("edvr", **TINY, with_tsa=False),
    "predeblur": models.build("predeblur", num_feat=4),
}


def groups(name):
    return NETWORKS[name].parameter_groups()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rvrt", {"tsa_only_steps": 5}, "tsa_only_steps has no effect: .* group 'fusion'"),
        ("rvrt", {"dcn_lr_multiplier": 0.5}, "dcn_lr_multiplier has no effect: .* group 'dcn'"),
        ("basicvsr", {"tsa_only_steps": 0}, "tsa_only_steps has no effect"),
        ("edvr", {"flow_freeze_steps": 0}, "flow_freeze_steps has no effect: .* group 'flow'"),
        ("edvr", {"flow_lr_multiplier": 1.0}, "flow_lr_multiplier has no effect"),
        ("edvr_wotsa", {"tsa_only_steps": 0}, "tsa_only_steps has no effect"),
        ("predeblur", {"dcn_lr_multiplier": 1.0}, "dcn_lr_multiplier has no effect"),
        ("rvrt", {"lr_weights": [1.0]}, "lr_weights=.* has no effect without config.lr_periods"),
        ("rvrt", {"lr_period": [1]}, "no option lr_period; there are .*'lr_periods'"),
        ("rvrt", {"loss_reduction": "max"}, "loss_reduction='max'; it must be one of"),
        ("rvrt", {"flow_freeze_steps": -1}, "flow_freeze_steps=-1; it must be at least 0"),
        ("edvr", {"frequency_weight": -0.1}, "frequency_weight=-0.1; it must be at least 0"),
        ("edvr", {"tsa_only_steps": 5}, "must be trained ones"),
        ("rvrt", {"identity_start": True, "init_from": "run"}, "would undo a part of"),
    ],
)
def test_an_option_without_effect_or_sense_is_refused_by_name(name, options, message):
    with pytest.raises(UserError, match=message):
        Settings.read(options, groups(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_recipe_spells_out_what_its_network_has_a_use_for(name):
    spelled = Settings().options(groups(name))
    assert ("flow_freeze_steps" in spelled) == (name in ("rvrt", "basicvsr"))
    assert ("tsa_only_steps" in spelled) == (name == "edvr")
    assert ("dcn_lr_multiplier" in spelled) == name.startswith("edvr")
    assert Settings.read(spelled, groups(name)) == Settings()


@pytest.mark.parametrize("name", ["edvr_l:a", "edvr_predeblur", "edvr_stage2", "edvr_tiny"])
def test_networks_without_flow_compile_one_step(name, monkeypatch):
    """A set of frozen groups is a program: theirs has none from the first step to the last."""
    monkeypatch.syspath_prepend(str(ROOT))
    name, *task = name.split(":")
    config = importlib.import_module(f"configs.{name}").get_config(*task).to_dict()
    network = models.build(**config["model"]).parameter_groups()
    options = {k: v for k, v in config.items() if k in Settings().options(network)}
    settings = Settings.read(options, network)
    learning = optim.learning_groups(settings, network)
    assert optim.frozen_at(learning, 0) == frozenset()
    assert {group.frozen_steps for group in learning} == {0}


def _leaves(groups, model):
    params = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, model.window or 1, 32, 32, 3), "f4")
    )["params"]
    state = jax.eval_shape(optim.adam(groups).init, params)
    paths = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in paths}


@pytest.mark.parametrize("name", ["edvr", "edvr_wotsa", "predeblur"])
def test_the_stored_state_is_that_of_runs_whose_recipes_all_had_a_flow_group(name):
    """The groups as they were before networks named them."""
    old = (optim.Group("flow", "spynet", 0.25, 30_000),)
    if name != "predeblur":
        old += (optim.Group("fusion", "fusion"), optim.Group("dcn", "dcn"), optim.REST)
    new = optim.learning_groups(Settings(), groups(name))
    assert _leaves(new, NETWORKS[name]) == _leaves(old, NETWORKS[name])
    assert any("'flow'" in path for path in _leaves(new, NETWORKS[name]))


def test_learning_groups_follow_the_options():
    settings = Settings(tsa_only_steps=7, dcn_lr_multiplier=0.5, init_from="run")
    found = {g.name: g for g in optim.learning_groups(settings, groups("edvr"))}
    assert (found["dcn"].multiplier, found["dcn"].frozen_steps) == (0.5, 7)
    assert (found["rest"].frozen_steps, found["fusion"].frozen_steps) == (7, 0)
    (flow, rest) = optim.learning_groups(Settings(), groups("rvrt"))
    assert (flow.multiplier, flow.frozen_steps, rest) == (0.25, 30_000, optim.REST)
    assert isinstance(optim.adam((flow, rest)), optax.GradientTransformation)


def test_a_scaled_batch_sees_as_many_clips_at_the_root_of_the_rate():
    given = {"batch_size": 8, "batch_scale": 4, "steps": 1001, "lr": 4e-4, "warmup_steps": 40}
    given |= {"ema_decay": 0.99, "flow_freeze_steps": 30, "save_every": 500, "eval_every": 1}
    recipe = Settings.read(given, groups("rvrt"))
    scaled = recipe.scaled()
    assert (scaled.batch_size, scaled.batch_scale, scaled.steps) == (32, 1, 251)  # rounded up
    assert (scaled.warmup_steps, scaled.flow_freeze_steps) == (10, 8)
    assert (scaled.save_every, scaled.eval_every, scaled.log_every) == (125, 1, 50)
    assert scaled.lr == pytest.approx(8e-4) and scaled.lr_floor == recipe.lr_floor
    assert scaled.ema_decay == pytest.approx(0.99**4)
    assert scaled.scaled() == scaled and Settings().scaled() == Settings()


def test_periods_of_a_scaled_batch_end_with_its_steps():
    given = {"steps": 25, "lr_periods": [10, 15], "lr_weights": [1.0, 0.5], "batch_scale": 4}
    scaled = Settings.read(given, groups("edvr")).scaled()
    assert (scaled.lr_periods, scaled.steps) == ((3, 4), 7)
    rate, before = optim.schedule(scaled), optim.schedule(Settings.read(given, groups("edvr")))
    assert float(rate(0)) == pytest.approx(2 * float(before(0)))
