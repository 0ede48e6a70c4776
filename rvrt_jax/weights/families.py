"""The families of weights: how to know whose a state dict is, and how it fills a network."""

from collections.abc import Mapping

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.weights import basicvsr, edvr, ffdnet, lpips, rvrt, spynet
from rvrt_jax.weights.mapping import Family, Table

FAMILIES: dict[str, Family] = {
    "rvrt": rvrt.FAMILY,
    "basicvsr": basicvsr.FAMILY,
    "edvr": edvr.FAMILY,
    "predeblur": edvr.PREDEBLUR,
    "spynet": spynet.FAMILY,
    "ffdnet": ffdnet.FAMILY,
    "lpips": lpips.FAMILY,
}


def detect(state: Mapping[str, np.ndarray]) -> dict | None:
    """Returns {"name": model} and those of its fields that shapes show; None for none we know.

    The keys may be of any style that `edvr.canonical` knows.
    Shapes do not show RVRT's `attention_heads`, `attention_window` (taken as 3x3 to work out
    `deformable_groups`) and `max_residue_magnitude`, nor `along_motion`, which has the shapes of
    `warped_neighbours`. For a checkpoint with keys missing only the
    name is returned.
    """
    shapes = {key: array.shape for key, array in edvr.canonical(state).items()}
    for name, family in FAMILIES.items():
        if family.mark in shapes:
            return {"name": name, **family.fields(shapes)}
    return None


def table(name: str, fields: Mapping) -> Table:
    """Returns the key table of model `name`, whose fields (with defaults filled in) are given.

    Raises UserError for a model without a table.
    """
    if name not in FAMILIES:
        raise UserError(f"there is no key table for the model {name!r}.")
    return FAMILIES[name].table(fields)
