"""Runs written by the version before the package's files moved load, and go on as they did then.

`tests/golden/runs/make.py` made them; the answers are what that version made of them.
"""

import importlib
import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from rvrt_jax import restore
from rvrt_jax.training import loop as training
from rvrt_jax.weights import load as loading

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "tests" / "golden" / "runs"
EVERY = 5  # the answers hold one in so many weights, as make.py says


@pytest.fixture(params=["edvr", "rvrt"])
def name(request):
    return request.param


@pytest.fixture
def run(tmp_path, name):
    with tarfile.open(RUNS / f"{name}.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


def weights(params):
    """Returns what make.py keeps of the weights: all but the flow network's, thinned."""
    own = {part: leaves for part, leaves in params.items() if part != "spynet"}
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(own)])[::EVERY]


@pytest.fixture
def config(name, monkeypatch):
    """Returns today's recipe with the options that the run was started with."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(RUNS)  # the runs name their clips by a path from there
    recipe = importlib.import_module(f"configs.{name}_tiny").get_config()
    recipe.data.update(validation_names=(), validation_frames=0, validation_size=0)  # as then
    recipe.update(json.loads((RUNS / f"{name}.json").read_text()))
    return recipe


def test_it_loads_and_restores(run, name):
    model, params = loading.load(run)
    stored = json.loads((run / "config.json").read_text())["model"]
    assert loading.config(model)["name"] == stored["name"] == name
    video = np.random.default_rng(0).random((3, 9, 12, 3), np.float32)
    assert restore(model, params, video).shape == (3, 36, 48, 3)
    if name == "rvrt":
        assert all(not leaf.any() for leaf in jax.tree.leaves(params["spynet"]))


@pytest.mark.parametrize(
    "name", ["edvr", pytest.param("rvrt", marks=pytest.mark.slow)], indirect=True
)
def test_it_goes_on_as_it_did_then(run, name, config):
    _, before = loading.load(run)
    training.run(config, run)
    _, after = loading.load(run, step=8)
    with np.load(RUNS / f"{name}_step_8.npz") as then:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        # Sums in another order move the losses by some 1e-7, and weights, whose steps are as large
        # for small gradients as for large ones, by more.
        np.testing.assert_allclose(losses, then["losses"][4:], rtol=1e-5)
        moved = np.abs(weights(after) - weights(before))
        wrong = np.abs(weights(after) - then["weights"])
    assert np.mean(moved) > 1e-4
    assert np.mean(wrong) < 1e-3 * np.mean(moved) and np.max(wrong) < 0.05 * np.max(moved)


def test_another_size_of_network_is_refused(run, config):
    shutil.rmtree(run / "checkpoints" / "4" / "data")  # nothing is read before the refusal
    config.model.num_feat *= 2
    with pytest.raises(ValueError, match="holds a run of another model .*num_feat: 4 -> 8"):
        training.run(config, run)
