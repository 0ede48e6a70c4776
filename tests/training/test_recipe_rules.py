"""What holds for the recipes in configs/, all of them, read with every argument they take."""

import importlib
import inspect
from pathlib import Path

import pytest

from rvrt_jax.evaluation.test_sets import TEST_SETS

ROOT = Path(__file__).parents[2]
STAGES, TASKS = ("a", "b"), ("deblur", "sr")
ARGUMENTS = {
    "edvr_m": STAGES,
    "edvr_l": STAGES,
    "edvr_l_vimeo": STAGES,
    "edvr_deblur": STAGES,
    "edvr_deblurcomp": STAGES,
    "edvr_srblur": STAGES,
    "edvr_stage2": TASKS,
    "edvr_predeblur": ("deblur", "srblur"),
    "rvrt_small": ("first", "longer", "gpu"),
    "rvrt_finetune": (*TASKS, "denoise"),
}
OURS = {"rvrt_tiny", "edvr_tiny", "rvrt_small", "rvrt_deblur_small", "rvrt_denoise_small"}
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")
PUBLISHED = [name for name in NAMES if name not in OURS and name != "rvrt_finetune"]


@pytest.fixture(params=NAMES)
def recipes(request, monkeypatch):
    """The name of a recipe, and what it returns for each argument."""
    monkeypatch.syspath_prepend(str(ROOT))
    get_config = importlib.import_module(f"configs.{request.param}").get_config
    takes = bool(inspect.signature(get_config).parameters)
    assert takes == (request.param in ARGUMENTS), f"say in ARGUMENTS what {request.param} takes"
    arguments = ARGUMENTS.get(request.param)
    return request.param, [get_config(a) for a in arguments] if arguments else [get_config()]


def test_published_recipes_add_nothing_to_what_was_published(recipes):
    """The names of the options; that 0 is off is tested where they are."""
    name, configs = recipes
    assert len(PUBLISHED) >= 15 and set(NAMES) >= OURS
    for config in configs if name in PUBLISHED else ():
        assert config.frequency_weight == 0.0
        assert config.backward_frames == 0
        assert config.batch_scale == config.accumulate == 1
        assert config.clip_norm == 0.0 and not config.identity_start


def test_no_recipe_validates_on_a_set_that_it_is_scored_on(recipes):
    """What is chosen by a validation would have seen the clips that are scored.

    The bundled ones are in our tables, whatever a recipe has eval.py run.
    """
    _, configs = recipes
    for config in configs:
        scored = {"bundled", *config.test_sets}
        scored |= {TEST_SETS[name].dataset for name in config.test_sets}
        assert config.data.validation_dataset not in scored
