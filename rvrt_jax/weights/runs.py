"""What a training run leaves, and reading it: `config.json` and `checkpoints/STEP/params`."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from rvrt_jax.errors import UserError
from rvrt_jax.weights import mapping

CONFIG = "config.json"
FOLDER = "checkpoints"
SCORE = "psnr_rgb"  # decides which checkpoint is the best
BEST, LAST = "best", "last"
# A checkpoint of a run: its step, BEST by validation, or LAST, which None stands for too.
Choice = int | str | None


def find(path: Path, step: Choice) -> tuple[Path, int]:
    """Returns the folder of checkpoints and the step to take: the one asked for or the last.

    path: of a run, of its checkpoints, or of one step. Raises UserError where there is none.
    """
    if (path / "params").is_dir():
        return path.parent, _only(step, path)
    folder = path if path.name == FOLDER else path / FOLDER
    return folder, _choose_step(folder, step)


def network(folder: Path) -> dict:
    """Returns {"name": ..., fields} of the run whose checkpoints lie in `folder`.

    Raises UserError where `config.json` does not say it.
    """
    file = folder.parent / CONFIG
    if not file.is_file():
        raise UserError(f"{file} is missing, which says the model. Pass its name and fields.")
    try:
        return json.loads(file.read_text())["model"]
    except (json.JSONDecodeError, KeyError) as error:
        raise UserError(f"{file} does not say the model ({error!r}).") from error


def read(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Returns the parameters of a checkpoint, {path: float32 array}, whatever devices wrote it.

    Raises UserError if it is damaged.
    """
    folder = folder / str(step) / "params"
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(folder).item_metadata.tree
            abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), dict(tree))
            restored = checkpointer.restore(folder, abstract)
    except (ValueError, OSError, AttributeError) as error:  # orbax has no type of its own
        raise UserError(f"{folder}: damaged or incomplete ({error}).") from error
    return {path: np.asarray(leaf, np.float32) for path, leaf in mapping.flatten(restored).items()}


def score(metrics: Mapping | None) -> float:
    """Returns what decides which checkpoint is the best; minus infinity where none was taken."""
    return (metrics or {}).get(SCORE, -math.inf)


def _only(step: Choice, path: Path) -> int:
    if not path.name.isdigit() or step not in (None, LAST, int(path.name)):
        raise UserError(f"{path} is one checkpoint; step={step} does not go with it.")
    return int(path.name)


def _choose_step(folder: Path, step: Choice) -> int:
    """Returns the step to load.

    The last one is the default: a best one is the luckiest of many by its validation clips.
    """
    if not folder.is_dir():
        raise UserError(f"{folder.parent} is not a training run: it has no folder {FOLDER}.")
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=score)
    with ocp.CheckpointManager(folder, options=options) as manager:
        steps = sorted(manager.all_steps())
        scores = {one: score(manager.metrics(one)) for one in steps}
    if not steps:
        raise UserError(f"{folder} holds no finished checkpoint yet.")
    if step == BEST and max(scores.values()) == -math.inf:
        raise UserError(f"{folder} has no validated checkpoint; take the last, or one of {steps}.")
    if step not in (None, BEST, LAST, *steps):
        raise UserError(f"{folder} has no step {step}; it has {steps}, and best and last.")
    if step == BEST:
        chosen = max(steps, key=lambda one: (scores[one], one))
    else:
        chosen = steps[-1] if step in (None, LAST) else int(step)
    logging.info("%s: taking step %d (%s %s) of %s", folder, chosen, SCORE, scores[chosen], steps)
    return chosen
