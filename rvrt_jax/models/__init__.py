"""The networks, and `build`, which makes one from a name and its fields."""

import dataclasses
from typing import Any

from flax import linen as nn

from rvrt_jax.errors import UserError
from rvrt_jax.models import basicvsr, edvr, rvrt

MODELS = {
    "rvrt": rvrt.RVRT,
    "basicvsr": basicvsr.BasicVSR,
    "edvr": edvr.EDVR,
    "predeblur": edvr.PreDeblurNet,
}
# The published sizes. BasicVSR has but one, its defaults.
VARIANTS = {name: ("rvrt", fields) for name, fields in rvrt.VARIANTS.items()}
VARIANTS["basicvsr"] = ("basicvsr", {})
VARIANTS |= {name: ("edvr", fields) for name, fields in edvr.VARIANTS.items()}

_IGNORED = ("img_size",)  # published configs carry it; the networks take any size
_LINEN = ("parent", "name")


def build(name: str, **fields: Any) -> nn.Module:
    """Makes a network.

    name: a model ("rvrt") or a published size ("rvrt_sr"), whose fields `fields` override; lists
    count as tuples. Raises UserError for an unknown name or field.
    """
    if name not in MODELS and name not in VARIANTS:
        raise UserError(f"unknown model {name!r}; choose from {sorted({*MODELS, *VARIANTS})}.")
    model, preset = VARIANTS.get(name, (name, {}))
    cls = MODELS[model]
    known = [f.name for f in dataclasses.fields(cls) if f.name not in _LINEN]
    unknown = sorted(set(fields) - set(known) - set(_IGNORED))
    if unknown:
        raise UserError(f"{name} has no field {', '.join(unknown)}; its fields are {known}.")
    fields = {key: value for key, value in fields.items() if key not in _IGNORED}
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in (preset | fields).items()}
    return cls(**fields)
