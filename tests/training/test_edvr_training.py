"""EDVR's recipes, and what its training needs beside what all models' does."""

import importlib
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from helpers import goldens, standin
from helpers.toy import Slide

from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.training import checks, optim, state
from rvrt_jax.training import loop as training
from rvrt_jax.weights import families, mapping, pth
from rvrt_jax.weights import load as loading

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("edvr_*.py"))
TINY = {"num_feat": 4, "num_frame": 3, "deformable_groups": 2}
TINY |= {"num_extract_block": 1, "num_reconstruct_block": 1}


def recipe(name, monkeypatch, *task):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module(f"configs.{name}").get_config(*task)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_network_that_its_data_fit_and_its_command(name, monkeypatch):
    config = recipe(name, monkeypatch)
    if config.get("tsa_only_steps"):
        with pytest.raises(UserError, match="must be trained ones.*stage a"):
            training.read(config)
        config.init_from = f"runs/{name}_a"
        assert config.init_from in importlib.import_module(f"configs.{name}").__doc__
    parts = training.read(config)
    checks.check_input(parts.data, parts.model)
    header = importlib.import_module(f"configs.{name}").__doc__
    assert f"python train.py --config configs/{name}.py" in header
    assert all(len(line) <= 100 for line in header.splitlines())


@pytest.mark.parametrize(
    ("name", "later"), [("edvr_m", 1), ("edvr_l", 0.5), ("edvr_l_vimeo", 0.5), ("edvr_deblur", 0.5)]
)
def test_both_stages_are_as_published(name, later, monkeypatch):
    first, second = recipe(name, monkeypatch, "a"), recipe(name, monkeypatch)
    for config in (first, second):
        assert (config.batch_size, config.steps, config.lr) == (32, 600_000, 4e-4)
        assert (config.ema_decay, config.loss_reduction, config.loss_eps) == (0.999, "sum", 1e-12)
        assert sum(config.lr_periods) == config.steps
        assert config.lr_weights == (1, *[later] * (len(config.lr_periods) - 1))
        assert config.data.gt_size == 256 and config.data.reverse_fraction == 0
    assert first.lr_periods == (150_000,) * 4
    assert second.lr_periods == (50_000, 100_000, 150_000, 150_000, 150_000)
    assert not first.model.with_tsa and second.model.with_tsa
    assert second.init_partial
    assert not {"tsa_only_steps", "flow_freeze_steps"} & set(first.keys())
    second.init_from = "runs/a"
    parts = training.read(second)
    groups = optim.learning_groups(parts.settings, parts.model.parameter_groups())
    assert optim.frozen_at(groups, 49_998) == {"dcn", "rest"}
    assert optim.frozen_at(groups, 49_999) == frozenset()  # iteration 50 000
    with pytest.raises(UserError, match="stage is 'c'"):
        recipe(name, monkeypatch, "c")


@pytest.fixture
def without_tsa(tmp_path):
    """A file of made-up weights of a small network without TSA, and its parameters."""
    model = models.build("edvr", **TINY, with_tsa=False)
    state = goldens.state_dict(families.table("edvr", {}), goldens.parameter_shapes(model), 3)
    pth.write(tmp_path / "a.pth", state)
    return tmp_path / "a.pth", loading.from_state_dict("edvr", state, **TINY, with_tsa=False)[1]


def test_the_second_stage_starts_from_the_first(without_tsa):
    path, first = without_tsa
    shapes = loading._shapes(models.build("edvr", **TINY))
    fresh = mapping.nest({key: np.full(shape, 7, np.float32) for key, shape in shapes.items()})
    params, report = loading.fill(fresh, path)
    np.testing.assert_array_equal(params["conv_hr"]["kernel"], first["conv_hr"]["kernel"])
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, 7), params["fusion"])
    assert mapping.flatten(params).keys() == shapes.keys()
    assert "starting fresh: fusion (26); left over in the file: fusion (2)" in report
    with pytest.raises(UserError, match="nothing in .* fits the network"):
        loading.fill({"conv_hr": {"kernel": np.zeros((1, 1))}}, path)


def test_a_window_trains_on_its_middle_frame(tmp_path, monkeypatch):
    """All frames but the middle one are black, of which the toy makes 5 + 10 times what it is."""

    def windows(self, index):
        gt = np.random.default_rng([self.seed, index]).random((1, 4, 4, 3), np.float32)
        gt = gt.repeat(8, axis=1).repeat(8, axis=2) * np.array([0, 0, 1, 0, 0])[:, None, None, None]
        return {"lq": gt[:, ::4, ::4].astype(np.float32), "gt": gt.astype(np.float32)}

    monkeypatch.setattr(standin.Noise, "map", windows)
    config = standin.config(
        loss_reduction="sum",
        lr_periods=(4, 8),
        lr_weights=(1.0, 0.5),
        lr=0.1,
        warmup_steps=0,
        model={"name": "slide", "scale": 4},
        data={"root": "nowhere", "num_frames": 5, "gt_size": 32},
    )
    with standin.installed(), mock.patch.dict(models.MODELS, {"slide": Slide}):
        training.run(config, tmp_path)
        with pytest.raises(UserError, match="samples of 6 frames; the network takes windows of 5"):
            training.run(standin.config(model=config.model, data={"root": "x"}), tmp_path / "x")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 12
    means = [np.mean(windows(standin.Noise(0), i)["gt"][2]) for i in range(4)]
    assert steps[0]["loss"] == pytest.approx(14 * np.mean(means) * 32 * 32 * 3, rel=1e-3)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert [round(line["lr"], 3) for line in steps[:6]] == [0.1, 0.085, 0.05, 0.015, 0.0, 0.048]
    assert steps[0]["offset_mean"] == 1.5 and steps[0]["offset_max"] == 5
    assert any("validation" in line for line in lines)


@pytest.mark.slow
def test_edvr_trains_through_both_phases(tmp_path, without_tsa):
    """Two compiled steps of a small network: nothing but the fusion learns at first."""
    file, trained = without_tsa
    config = standin.config(
        steps=4,
        tsa_only_steps=2,
        init_from=str(file),
        init_partial=True,
        ema_decay=0.0,  # an average of equal numbers rounds
        model={"name": "edvr", **TINY},
        data={"root": "nowhere", "num_frames": 3, "gt_size": 32},
    )

    def windows(self, index):
        gt = np.random.default_rng([self.seed, index]).random((3, 4, 4, 3), np.float32)
        gt = gt.repeat(8, axis=1).repeat(8, axis=2)
        return {"lq": gt[:, ::4, ::4].copy(), "gt": gt}

    with mock.patch.object(standin.Noise, "map", windows), standin.installed():
        config.steps = 2
        training.run(config, tmp_path / "run")
        early = loading._restore(tmp_path / "run" / "checkpoints" / "2" / "params")
        config.steps = 4
        training.run(config, tmp_path / "run")
        late = loading._restore(tmp_path / "run" / "checkpoints" / "4" / "params")
    fresh = mapping.flatten(state.draw(models.build("edvr", **TINY), 0))
    trained = mapping.flatten(trained)
    for path, leaf in late.items():
        if path.startswith("fusion"):
            assert np.any(early[path] != np.asarray(fresh[path])), path
        else:
            np.testing.assert_array_equal(early[path], trained[path], path)
        assert np.any(leaf != early[path]), path
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 4 and all(line["offset_max"] >= 0 for line in steps)
