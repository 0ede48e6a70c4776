"""Options that would change nothing are refused by name; where they have an effect, they pass."""

import dataclasses
import json

import pytest

from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError

OWN = {"dataset": "own", "photo_fraction": 0.0}
GIVEN = {**OWN, "degradation": "given", "lq_root": "lq", "validation_dataset": "none"}
NOISE = {**OWN, "degradation": "noise", "scale": 1}
WORKERS = {"num_workers": 8}
VALIDATED = {"validation_dataset": "own"}
LQ = {"validation_lq_root": "lq"}

# An option, recipes in which it has no effect, and one in which it has.
EFFECTS = {
    "sigma": ([5.0, 20.0], [{}, GIVEN], NOISE),
    "validation_sigma": (10.0, [{}, GIVEN | VALIDATED | LQ], NOISE),
    "num_threads": (4, [WORKERS], {}),
    "camera_fraction": (0.25, [GIVEN, {"photo_fraction": 1.0}], NOISE),
    "parallax_fraction": (0.1, [OWN], {}),
    "max_speed": (9.0, [{**OWN, "camera_fraction": 0.0}, GIVEN], {**NOISE, "camera_fraction": 0.1}),
    "max_zoom": (9.0, [{**OWN, "camera_fraction": 0.0}, GIVEN], {"photo_fraction": 1.0}),
    "validation_root": ("elsewhere", [{}, NOISE], VALIDATED),
    "validation_lq_root": ("elsewhere", [{}, VALIDATED], GIVEN | VALIDATED | LQ),
}


@pytest.mark.parametrize(
    ("key", "recipe"), [(key, recipe) for key, (_, idle, _) in EFFECTS.items() for recipe in idle]
)
def test_an_option_without_effect_is_refused_by_name(key, recipe):
    DataOptions.read(recipe)
    with pytest.raises(UserError, match=f"^data.{key} is .* has no effect: .* Leave it out"):
        DataOptions.read({**recipe, key: EFFECTS[key][0]})


@pytest.mark.parametrize("key", EFFECTS)
def test_where_it_has_an_effect_it_passes(key):
    value, _, recipe = EFFECTS[key]
    options = DataOptions.read({**recipe, key: value})
    assert getattr(options, key) == (tuple(value) if isinstance(value, list) else value)


def test_fractions_of_0_say_what_happens_anyway():
    DataOptions.read({**GIVEN, "camera_fraction": 0.0, "parallax_fraction": 0.0})


def test_validation_can_be_switched_off_alone():
    """Whatever a recipe says of it."""
    others = {"validation_root": "x", "validation_lq_root": "y", "validation_sigma": 1.0}
    DataOptions.read({"validation_dataset": "none", **others})


def test_written_options_can_be_read_again():
    """Run folders hold every option, those without effect with their defaults."""
    for recipe in ({}, GIVEN, NOISE, WORKERS, GIVEN | VALIDATED | LQ):
        options = DataOptions.read(recipe)
        assert DataOptions.read(json.loads(json.dumps(dataclasses.asdict(options)))) == options


def test_pairs_to_validate_on_are_named():
    """Else the current folder would be searched for them."""
    with pytest.raises(UserError, match="validation_lq_root, or set validation_dataset to 'none'"):
        DataOptions.read({**GIVEN, **VALIDATED})
