"""Build a model and fill it with weights from any file the project knows.

`load` takes a `.pth`, a `.safetensors`, the folder of a training run, or the name of weights that
are packaged or were fetched with `python -m rvrt_jax.weights get NAME`. Parameters are nested
dicts of numpy float32 arrays.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, in_channels
from rvrt_jax.weights import catalogue, edvr, families, mapping, runs, spynet, state_dict


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model with its parameters, and on which terms they may be used."""

    model: Network
    params: dict
    license: str = "unknown"
    source: str = "unknown"


def load(
    path: str | os.PathLike,
    name: str | None = None,
    *,
    entry: str | None = None,
    step: runs.Choice = None,
    **fields: Any,
) -> tuple[Network, dict]:
    """Returns (model, params) from any checkpoint.

    path: a `.pth` or `.safetensors` file; a training run's folder, its `checkpoints`, or one step
    of these; or a name that `python -m rvrt_jax.weights list` shows.
    name: of the model or variant, with `fields` as for `build`. Without it the file's own config
    is taken, or, for a `.pth`, the published variant whose shapes it has; `fields` override.
    entry: which state dict of a `.pth` that has several (`params`, `params_ema`).
    step: which checkpoint of a run: its number, "best" by validation, or "last", the default.

    Raises UserError for a checkpoint that is damaged or of another model, saying of which;
    FileNotFoundError where there is neither a file nor such a name.
    """
    loaded = load_described(path, name, entry=entry, step=step, **fields)
    return loaded.model, loaded.params


def load_described(
    path: str | os.PathLike,
    name: str | None = None,
    *,
    entry: str | None = None,
    step: runs.Choice = None,
    **fields: Any,
) -> Loaded:
    """Does what `load` does and also tells the licence and the source of the weights."""
    weight = None
    if not os.path.exists(path):
        path, weight = catalogue.find(os.fspath(path))
    if os.path.isdir(path):
        return _load_run(Path(path).absolute(), name, step, fields)
    if step is not None:
        raise UserError(f"{path} is a file; step={step} chooses a checkpoint of a run's folder.")
    checkpoint = state_dict.read(path, entry=entry)
    if name is None:
        own = checkpoint.config or (weight and {"name": weight.model})
        name, fields = _override(own or _variant(checkpoint.state, path), fields)
    if name == "spynet":
        raise UserError(f"{path} holds SpyNet alone; rvrt_jax.weights.load.spynet_params reads it.")
    try:
        model, params = from_state_dict(name, checkpoint.state, **fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    terms = weight or checkpoint
    return Loaded(model, params, terms.license, terms.source)


def check_exists(path: str) -> None:
    """Raises as `load` does if there is neither a file, nor fetched weights of this name."""
    if not os.path.exists(path):
        catalogue.find(path)


def load_pth(
    path: str | os.PathLike, name: str, *, entry: str | None = None, **fields: Any
) -> tuple[Network, dict]:
    """Returns (model, params) from a PyTorch `.pth` file, as `from_state_dict` does.

    path: the file. name, fields: as for `build`. entry: as for `load`. Raises as `load` does.
    """
    return load(path, name, entry=entry, **fields)


def from_state_dict(
    name: str, state: Mapping[str, np.ndarray], **fields: Any
) -> tuple[Network, dict]:
    """Returns (model, params) from a PyTorch state dict as numpy arrays.

    name, fields: as for `build`. state_dict: {key: array}; every key must be used and every
    parameter filled; buffers may be there or not. EDVR's keys may be BasicSR's, the 2019 code's or
    mmagic's. Raises UserError with every missing, unexpected and misshapen key, and the fields to
    change.
    """
    model = models.build(name, **fields)
    try:
        params = mapping.to_params(_table(model), edvr.canonical(state), _shapes(model))
    except UserError as error:
        hint = _hint(model, families.detect(state))
        raise UserError(f"cannot fill {name!r}: {error}\n{hint}") from None
    return model, mapping.nest(params)


def fill(params: Mapping, path: str | os.PathLike) -> tuple[dict, str]:
    """Returns `params` with every array that a checkpoint has under the same path and shape.

    For training that starts from another network, such as EDVR with TSA from one without. path: as
    `load`'s. Also returns what was taken, what stays as it was, and what is left over in the file,
    in words. Raises UserError if nothing fits.
    """
    own, theirs = mapping.flatten(params), mapping.flatten(load_described(path).params)
    taken = {key for key, array in theirs.items() if key in own and own[key].shape == array.shape}
    if not taken:
        raise UserError(f"nothing in {path} fits the network: no name and shape is the same.")
    report = (
        f"from {path}: {len(taken)} of {len(own)} arrays taken; starting fresh: "
        f"{_parts(own.keys() - taken)}; left over in the file: {_parts(theirs.keys() - taken)}"
    )
    return mapping.nest({key: theirs[key] if key in taken else own[key] for key in own}), report


def _parts(paths: Iterable[str]) -> str:
    """Names the parts of a network that paths belong to, with their number of arrays."""
    counts = collections.Counter(path.split("/")[0] for path in paths)
    return ", ".join(f"{part} ({count})" for part, count in sorted(counts.items())) or "nothing"


def to_state_dict(model: Network, params: Mapping) -> dict[str, np.ndarray]:
    """Returns the PyTorch state dict, buffers included, of a model's parameters.

    Raises UserError if `params` are not the model's.
    """
    flat = {path: np.asarray(array) for path, array in mapping.flatten(params).items()}
    mapping.check_shapes(flat, _shapes(model))
    return mapping.to_state(_table(model), flat)


def config(model: Network) -> dict[str, Any]:
    """Returns {"name": ..., fields} from which `build` makes the same model; JSON can hold it."""
    fields = models.fields(model)
    kept = {key: value for key, value in fields.items() if key not in model.compute_fields}
    return {"name": models.name_of(model), **kept}


def spynet_params(path: str | os.PathLike = catalogue.ASSETS / "spynet.safetensors") -> dict:
    """Returns trained SpyNet parameters, {level_0: {conv_0: {kernel, bias}, ...}, ...}, float32.

    For the `spynet` part of a model's parameters, before training. The packaged file is described
    in assets/spynet.md; `path` may name another SpyNet checkpoint, `.pth` or `.safetensors`, or
    weights fetched by name ("spynet_sintel").
    """
    if not os.path.exists(path):
        path, _ = catalogue.find(os.fspath(path))
    try:
        params = mapping.to_params(
            families.table("spynet", {}), state_dict.read(path).state, spynet.shapes()
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return mapping.nest(params)


def _table(model: Network) -> mapping.Table:
    return families.table(models.name_of(model), models.fields(model))


@functools.cache
def _shapes(model: Network) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by path, without computing any."""
    video = jax.ShapeDtypeStruct((1, *model.example_size(), in_channels(model)), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), video)["params"]
    return {path: leaf.shape for path, leaf in mapping.flatten(params).items()}


def _override(own: Mapping, fields: Mapping) -> tuple[str, dict]:
    """Returns the name and fields of a config, with `fields` in place of its own."""
    merged = {**own, **fields}
    return merged.pop("name"), merged


def _load_run(path: Path, name: str | None, step: runs.Choice, fields: dict) -> Loaded:
    """Loads one checkpoint of a training run; path: its folder, its `checkpoints`, or a step's."""
    folder, step = runs.find(path, step)
    if name is None:
        name, fields = _override(runs.network(folder), fields)
    model = models.build(name, **fields)
    flat = runs.read(folder, step)
    try:
        mapping.check_shapes(flat, _shapes(model))
    except UserError as error:
        raise UserError(f"{folder / str(step)}: cannot fill {name!r}: {error}") from None
    return Loaded(model, mapping.nest(flat), source=f"training run, step {step}")


def _variant(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> dict[str, Any]:
    """Returns {"name": variant} for the variant whose shapes a state dict has.

    Or the name and the fields of a model of another size whose shapes tell them all.
    """
    seen = families.detect(state)
    if seen is None:
        raise UserError(
            f"{path} is of no model known here: {len(state)} keys, such as {list(state)[:3]}."
        )
    for variant, (name, preset) in models.VARIANTS.items():
        model = models.fields(models.build(name, **preset))
        if (
            name == seen["name"]
            and len(seen) > 1
            and seen.items() <= (model | {"name": name}).items()
        ):
            return {"name": variant}
    if families.FAMILIES[seen["name"]].shown_by_shapes and len(seen) > 1:
        return seen
    raise UserError(
        f"{path} has the shapes of no published variant; it looks like {_spell(seen)}. "
        "Pass the model's name and its fields."
    )


def _hint(model: Network, seen: Mapping | None) -> str:
    """Says what a state dict is that does not fit, and which fields of the model to change."""
    if seen is None:
        return "They are of no model known here."
    hint = f"They look like {_spell(seen)}."
    if seen["name"] == models.name_of(model):
        own = models.fields(model)
        others = {key: value for key, value in seen.items() if own.get(key, value) != value}
        changes = [f"{key}={value} (here {own[key]})" for key, value in others.items()]
        if changes:
            hint += f" To load them, build the model with {', '.join(changes)}."
    return hint


def _spell(seen: Mapping) -> str:
    fields = ", ".join(f"{key}={value}" for key, value in seen.items() if key != "name")
    return f"{seen['name']!r} ({fields or 'incomplete'})"
