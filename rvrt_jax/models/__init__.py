"""The networks, and `build`, which makes one from a name and its fields."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from rvrt_jax.errors import UserError
from rvrt_jax.models import basicvsr, edvr, ffdnet, rvrt
from rvrt_jax.models.contract import Network

MODELS: dict[str, type[Network]] = {
    "rvrt": rvrt.RVRT,
    "basicvsr": basicvsr.BasicVSR,
    "edvr": edvr.EDVR,
    "predeblur": edvr.PreDeblurNet,
    "ffdnet": ffdnet.FFDNet,
}
# The published sizes. BasicVSR and FFDNet for colour have but one, their defaults.
VARIANTS = {name: ("rvrt", fields) for name, fields in rvrt.VARIANTS.items()}
VARIANTS |= {"basicvsr": ("basicvsr", {}), "ffdnet": ("ffdnet", {})}
VARIANTS |= {name: ("edvr", fields) for name, fields in edvr.VARIANTS.items()}

_IGNORED = ("img_size",)  # published configs carry it; the networks take any size
_LINEN = ("parent", "name")
DTYPES = ("float32", "bfloat16", "float16")


def build(name: str, **fields: Any) -> Network:
    """Makes a network.

    name: a model ("rvrt") or a published size ("rvrt_sr"), whose fields `fields` override. Lists
    count as tuples, and `dtype` may be a name. Raises UserError for an unknown name or field.
    """
    if name not in MODELS and name not in VARIANTS:
        raise UserError(f"unknown model {name!r}; choose from {sorted({*MODELS, *VARIANTS})}.")
    model, preset = VARIANTS.get(name, (name, {}))
    cls = MODELS[model]
    known = field_names(cls)
    unknown = sorted(set(fields) - set(known) - set(_IGNORED))
    if unknown:
        raise UserError(f"{name} has no field {', '.join(unknown)}; its fields are {known}.")
    fields = {key: value for key, value in fields.items() if key not in _IGNORED}
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in (preset | fields).items()}
    if "dtype" in fields:
        fields["dtype"] = parse_dtype(fields["dtype"])
    return cls(**fields)


def parse_dtype(dtype: Any) -> Any:
    """Returns the dtype of a name in `DTYPES`; a dtype is returned as it is.

    Raises UserError for any other name.
    """
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; choose from {', '.join(DTYPES)}.")
    return jnp.dtype(dtype)


def name_of(network: Network) -> str:
    """Returns the name in `MODELS` of a network's class."""
    return next(name for name, cls in MODELS.items() if type(network) is cls)


def field_names(network: Network | type[Network]) -> list[str]:
    """Returns the names of the fields that a recipe can give, in order."""
    return [field.name for field in dataclasses.fields(network) if field.name not in _LINEN]


def fields(network: Network) -> dict[str, Any]:
    """Returns the value of every field of a network, by name."""
    return {name: getattr(network, name) for name in field_names(network)}
