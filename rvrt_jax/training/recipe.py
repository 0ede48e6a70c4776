"""A recipe, taken apart."""

from dataclasses import dataclass
from typing import Any

from rvrt_jax import models
from rvrt_jax.data.options import DataOptions
from rvrt_jax.models.contract import Network
from rvrt_jax.training.settings import Settings

Config = Any  # an ml_collections.ConfigDict, whose values have no static type
EVALUATION = ("test_sets", "published")  # parts of a recipe that only eval.py reads


@dataclass(frozen=True)
class Recipe:
    """The parts of a recipe, read and checked.

    settings: with batch_scale worked in. network: name and fields of `model`, as `models.build`
    takes them. config: all of the recipe, as it is kept in the run's folder.
    """

    settings: Settings
    model: Network
    network: dict[str, Any]
    data: DataOptions
    config: dict[str, Any]


def read(config: Config) -> Recipe:
    """Takes a recipe apart; raises UserError for options that do not exist, fit or work."""
    values = config.to_dict()
    network = dict(values["model"])
    model = models.build(**network)
    options = {k: v for k, v in values.items() if k not in ("model", "data", *EVALUATION)}
    groups = model.parameter_groups()
    settings = Settings.read(options, groups)
    data = DataOptions.read(values["data"])
    return Recipe(settings.scaled(), model, network, data, values | settings.options(groups))
