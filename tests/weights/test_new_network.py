"""A network that the package does not know needs three entries: its class, its keys, its recipe."""

import contextlib
from unittest import mock

import jax
import numpy as np
import pytest
from helpers import standin
from ml_collections import ConfigDict

from rvrt_jax import convert, models, restore
from rvrt_jax.errors import UserError
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.training import loop as training
from rvrt_jax.weights import families, load
from rvrt_jax.weights.mapping import Family, Shapes, Table, module


class New(standin.Net):
    """The stand-in under a name of its own."""


def fields(shapes: Shapes) -> dict:
    return {"width": shapes["conv_in.weight"][0]}


FAMILY = Family(
    mark="conv_in.weight",
    table=lambda _: Table(
        (
            *module("spynet.conv", "spynet/conv", "conv2d"),
            *module("conv_in", "conv_in", "conv2d"),
            *module("conv_out", "conv_out", "conv2d"),
        )
    ),
    fields=fields,
    shown_by_shapes=True,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Adds the three entries and trains for two steps; returns the folder of the run."""
    recipe = standin.config(steps=2, save_every=2, eval_every=2)
    recipe.model = ConfigDict({"name": "new", "width": 6})
    folder = tmp_path_factory.mktemp("new")
    with contextlib.ExitStack() as stack:
        stack.enter_context(standin.installed())  # data and flow weights
        stack.enter_context(mock.patch.dict(models.MODELS, {"new": New}))
        stack.enter_context(mock.patch.dict(families.FAMILIES, {"new": FAMILY}))
        training.run(recipe, folder)
        yield folder


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_run_loads_plans_and_restores(run):
    model, params = load.load(run)
    assert isinstance(model, New) and model.width == 6
    video = np.random.default_rng(0).random((3, 5, 7, 3), np.float32)
    restored = restore(model, params, video)
    expected = model.apply({"params": params}, video[None])[0]
    np.testing.assert_allclose(restored, expected, atol=1e-6)
    plan = plan_tiles(model, params, video.shape[:3], RestoreSettings(tile="auto"))
    assert plan.tile == (0, 0, 0) and plan.call == (3, 5, 7)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_its_weights_are_converted_and_known_again(run, tmp_path, suffix):
    """A .pth says no model: the keys and shapes tell it."""
    file = tmp_path / f"weights{suffix}"
    assert convert.main([str(run), str(file)]) == 0
    (model, params), (expected, expected_params) = load.load(file), load.load(run)
    assert load.config(model) == load.config(expected) == {"name": "new", "width": 6}
    assert_same(params, expected_params)


def test_weights_of_another_width_are_refused(run, tmp_path):
    file = tmp_path / "weights.pth"
    assert convert.main([str(run), str(file)]) == 0
    with pytest.raises(UserError, match=r"cannot fill 'new'(.|\n)*width=6 \(here 5\)"):
        load.load(file, "new", width=5)
