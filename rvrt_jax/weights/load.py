"""Build a model and fill it with weights from any file the project knows.

`load` takes a `.pth`, a `.safetensors`, the folder of a training run, or the name of weights that
are packaged or were fetched with `python -m rvrt_jax.weights get NAME`. Parameters are nested
dicts of numpy float32 arrays.
"""

import collections
import dataclasses
import functools
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, in_channels
from rvrt_jax.weights import catalogue as weights
from rvrt_jax.weights import edvr as styles
from rvrt_jax.weights import families as detect
from rvrt_jax.weights import mapping as keys
from rvrt_jax.weights import state_dict as state
from rvrt_jax.weights import tables

ASSETS = weights.ASSETS

# What a training run leaves: config.json, and checkpoints/<step>/params.
CONFIG = "config.json"
FOLDER = "checkpoints"
SCORE = "psnr_rgb"

# Models whose fields that matter can all be read off the shapes.
_TOLD_BY_SHAPES = ("edvr", "predeblur")
_SPYNET_WIDTHS = (8, 32, 64, 32, 16, 2)


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
    step: int | None = None,
    **fields: Any,
) -> tuple[Network, dict]:
    """Returns (model, params) from any checkpoint.

    path: a `.pth` or `.safetensors` file; a training run's folder, its `checkpoints`, or one step
    of these; or a name that `python -m rvrt_jax.weights list` shows.
    name: of the model or variant, with `fields` as for `build`. Without it the file's own config
    is taken, or, for a `.pth`, the published variant whose shapes it has; `fields` override.
    entry: which state dict of a `.pth` that has several (`params`, `params_ema`).
    step: which checkpoint of a run; without it the one that scored best, or the last if none did.

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
    step: int | None = None,
    **fields: Any,
) -> Loaded:
    """Does what `load` does and also tells the licence and the source of the weights."""
    weight = None
    if not os.path.exists(path):
        path, weight = weights.find(os.fspath(path))
    if os.path.isdir(path):
        return _load_run(Path(path).absolute(), name, step, fields)
    if step is not None:
        raise UserError(f"{path} is a file; step={step} chooses a checkpoint of a run's folder.")
    checkpoint = state.read(path, entry=entry)
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
        weights.find(path)


def load_pth(
    path: str | os.PathLike, name: str, *, entry: str | None = None, **fields: Any
) -> tuple[Network, dict]:
    """Returns (model, params) from a PyTorch `.pth` file, as `from_state_dict` does.

    path: the file. name, fields: as for `build`. entry: as for `load`. Raises as `load` does.
    """
    return load(path, name, entry=entry, **fields)


def from_state_dict(
    name: str, state_dict: Mapping[str, np.ndarray], **fields: Any
) -> tuple[Network, dict]:
    """Returns (model, params) from a PyTorch state dict as numpy arrays.

    name, fields: as for `build`. state_dict: {key: array}; every key must be used and every
    parameter filled; buffers may be there or not. EDVR's keys may be BasicSR's, the 2019 code's or
    mmagic's. Raises UserError with every missing, unexpected and misshapen key, and the fields to
    change.
    """
    model = models.build(name, **fields)
    try:
        params = keys.to_params(_table(model), styles.canonical(state_dict), _shapes(model))
    except UserError as error:
        hint = _hint(model, detect.detect(state_dict))
        raise UserError(f"cannot fill {name!r}: {error}\n{hint}") from None
    return model, keys.nest(params)


def fill(params: Mapping, path: str | os.PathLike) -> tuple[dict, str]:
    """Returns `params` with every array that a checkpoint has under the same path and shape.

    For training that starts from another network, such as EDVR with TSA from one without. path: as
    `load`'s. Also returns what was taken, what stays as it was, and what is left over in the file,
    in words. Raises UserError if nothing fits.
    """
    own, theirs = keys.flatten(params), keys.flatten(load_described(path).params)
    taken = {key for key, array in theirs.items() if key in own and own[key].shape == array.shape}
    if not taken:
        raise UserError(f"nothing in {path} fits the network: no name and shape is the same.")
    report = (
        f"from {path}: {len(taken)} of {len(own)} arrays taken; starting fresh: "
        f"{_parts(own.keys() - taken)}; left over in the file: {_parts(theirs.keys() - taken)}"
    )
    return keys.nest({key: theirs[key] if key in taken else own[key] for key in own}), report


def _parts(paths: Iterable[str]) -> str:
    """Names the parts of a network that paths belong to, with their number of arrays."""
    counts = collections.Counter(path.split("/")[0] for path in paths)
    return ", ".join(f"{part} ({count})" for part, count in sorted(counts.items())) or "nothing"


def to_state_dict(model: Network, params: Mapping) -> dict[str, np.ndarray]:
    """Returns the PyTorch state dict, buffers included, of a model's parameters.

    Raises UserError if `params` are not the model's.
    """
    flat = {path: np.asarray(array) for path, array in keys.flatten(params).items()}
    keys.check_shapes(flat, _shapes(model))
    return keys.to_state(_table(model), flat)


def config(model: Network) -> dict[str, Any]:
    """Returns {"name": ..., fields} from which `build` makes the model anew; JSON can hold it."""
    fields = models.fields(model)
    kept = {key: value for key, value in fields.items() if key not in model.compute_fields}
    return {"name": models.name_of(model), **kept}


def spynet_params(path: str | os.PathLike = ASSETS / "spynet.safetensors") -> dict:
    """Returns trained SpyNet parameters, {level_0: {conv_0: {kernel, bias}, ...}, ...}, float32.

    For the `spynet` part of a model's parameters, before training. The packaged file is described
    in assets/spynet.md; `path` may name another SpyNet checkpoint, `.pth` or `.safetensors`, or
    weights fetched by name ("spynet_sintel").
    """
    if not os.path.exists(path):
        path, _ = weights.find(os.fspath(path))
    shapes = {}
    for level in range(6):
        for conv, (width, out) in enumerate(zip(_SPYNET_WIDTHS, _SPYNET_WIDTHS[1:], strict=False)):
            shapes[f"level_{level}/conv_{conv}/kernel"] = (7, 7, width, out)
            shapes[f"level_{level}/conv_{conv}/bias"] = (out,)
    try:
        params = keys.to_params(tables.table("spynet", {}), state.read(path).state, shapes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return keys.nest(params)


def _table(model: Network) -> keys.Table:
    return tables.table(models.name_of(model), models.fields(model))


@functools.cache
def _shapes(model: Network) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by path, without computing any."""
    video = jax.ShapeDtypeStruct((1, *model.example_size(), in_channels(model)), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), video)["params"]
    return {path: leaf.shape for path, leaf in keys.flatten(params).items()}


def _override(own: Mapping, fields: Mapping) -> tuple[str, dict]:
    """Returns the name and fields of a config, with `fields` in place of its own."""
    merged = {**own, **fields}
    return merged.pop("name"), merged


def _load_run(path: Path, name: str | None, step: int | None, fields: dict) -> Loaded:
    """Loads one checkpoint of a training run; path: its folder, its `checkpoints`, or a step's."""
    if (path / "params").is_dir():
        folder, step = path.parent, _only(step, path)
    else:
        folder = path if path.name == FOLDER else path / FOLDER
        step = _choose_step(folder, step)
    if name is None:
        file = folder.parent / CONFIG
        if not file.is_file():
            raise UserError(f"{file} is missing, which says the model. Pass its name and fields.")
        try:
            own = json.loads(file.read_text())["model"]
        except (json.JSONDecodeError, KeyError) as error:
            raise UserError(f"{file} does not say the model ({error!r}).") from error
        name, fields = _override(own, fields)
    model = models.build(name, **fields)
    flat = _restore(folder / str(step) / "params")
    try:
        keys.check_shapes(flat, _shapes(model))
    except UserError as error:
        raise UserError(f"{folder / str(step)}: cannot fill {name!r}: {error}") from None
    return Loaded(model, keys.nest(flat), source=f"training run, step {step}")


def _only(step: int | None, path: Path) -> int:
    if not path.name.isdigit() or step not in (None, int(path.name)):
        raise UserError(f"{path} is one checkpoint; step={step} does not go with it.")
    return int(path.name)


def _choose_step(folder: Path, step: int | None) -> int:
    """Returns the step to load: the one asked for, else the best, else the last."""
    if not folder.is_dir():
        raise UserError(f"{folder.parent} is no training run: it has no folder {FOLDER}.")
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_score)
    with ocp.CheckpointManager(folder, options=options) as manager:
        steps = sorted(manager.all_steps())
        scores = {one: _score(manager.metrics(one)) for one in steps}
    if not steps:
        raise UserError(f"{folder} holds no finished checkpoint yet.")
    if step is not None and step not in steps:
        raise UserError(f"{folder} has no step {step}; it has {steps}.")
    chosen = max(steps, key=lambda one: (scores[one], one)) if step is None else step
    logging.info("%s: taking step %d (%s %s) of %s", folder, chosen, SCORE, scores[chosen], steps)
    return chosen


def _score(metrics: Mapping | None) -> float:
    return (metrics or {}).get(SCORE, -math.inf)


def _restore(folder: Path) -> dict[str, np.ndarray]:
    """Reads an orbax item of arrays as {path: float32 array}, whatever devices wrote it."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(folder).item_metadata.tree
            abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), dict(tree))
            restored = checkpointer.restore(folder, abstract)
    except (ValueError, OSError, AttributeError) as error:  # orbax has no type of its own
        raise UserError(f"{folder}: damaged or incomplete ({error}).") from error
    return {path: np.asarray(leaf, np.float32) for path, leaf in keys.flatten(restored).items()}


def _variant(state_dict: Mapping[str, np.ndarray], path: str | os.PathLike) -> dict[str, Any]:
    """Returns {"name": variant} for the variant whose shapes a state dict has.

    Or the name and the fields of a model of another size whose shapes tell them all.
    """
    seen = detect.detect(state_dict)
    if seen is None:
        raise UserError(
            f"{path} is of no model known here: {len(state_dict)} keys, such as "
            f"{list(state_dict)[:3]}."
        )
    for variant, (name, preset) in models.VARIANTS.items():
        model = models.fields(models.build(name, **preset))
        if (
            name == seen["name"]
            and len(seen) > 1
            and seen.items() <= (model | {"name": name}).items()
        ):
            return {"name": variant}
    if seen["name"] in _TOLD_BY_SHAPES and len(seen) > 1:
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
