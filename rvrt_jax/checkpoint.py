"""What a run leaves on disk: `config.json` and `checkpoints/`, from which it resumes exactly.

A checkpoint has three items. `params` are the weights to evaluate (the average where there is
one), alone, so that they load without the rest; `rest` is all else of the state; `data` is the
position of the input pipeline. Kept are the latest two and the best by validation.
"""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rvrt_jax.errors import UserError
from rvrt_jax.parallel import replicated
from rvrt_jax.state import TrainState

FOLDER = "checkpoints"
CONFIG = "config.json"
SCORE = "psnr_rgb"  # decides which checkpoint is the best


def config_changes(workdir: Path, config: dict[str, Any]) -> list[str]:
    """Returns what differs from the run that `workdir` holds, if any, as "key: old -> new".

    Raises UserError if that is a run of another model.
    """
    path = workdir / CONFIG
    if not path.is_file():
        return []
    old, new = _flatten(json.loads(path.read_text())), _flatten(_as_json(config))
    changes = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    model_changes = [change for change in changes if change.startswith("model.")]
    if model_changes:
        raise UserError(
            f"{workdir} holds a run of another model ({'; '.join(model_changes)}). "
            "Pass another --workdir, or remove this one."
        )
    return changes


def write_config(workdir: Path, config: dict[str, Any]) -> None:
    """Writes `config.json`, creating the folder."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / CONFIG
    temporary = path.with_name(f"{CONFIG}.tmp-{os.getpid()}")
    temporary.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(temporary, path)


def _as_json(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config as it would be read back: tuples become lists."""
    return json.loads(json.dumps(config))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} of a nested dict."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending writes at the end."""

    def __init__(self, workdir: Path) -> None:
        self._folder = workdir.absolute() / FOLDER
        latest = preservation_policy.LatestN(2)
        best = preservation_policy.BestN(get_metric_fn=_score, n=1)
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,  # without it orbax would not store the scores
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,  # half-written ones of a killed run
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Returns the step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Returns the step and score of the best checkpoint on disk, None before any was scored."""
        self._manager.wait_until_finished()
        scored = [(_score(self._manager.metrics(step)), step) for step in self._manager.all_steps()]
        score, step = max(scored, default=(-math.inf, 0))
        return (step, score) if math.isfinite(score) else None

    def save(self, step: int, state: TrainState, data: Any, *, scores: dict | None = None) -> None:
        """Starts writing a checkpoint; it appears under its name only when it is complete.

        data: the grain iterator. scores: of the validation at this step, if there was one.
        """
        params, rest = _items(state)
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            rest=ocp.args.StandardSave(rest),
            data=grain.checkpoint.CheckpointSave(data),
        )
        self._manager.save(step, args=items, metrics=scores or {}, force=True)

    def restore(self, like: TrainState, data: Any) -> TrainState | None:
        """Returns the newest readable state and moves the iterator `data` there; None if none is.

        like: a state of the same structure, or its shapes and dtypes. A newer checkpoint that
        cannot be read is named and moved to `checkpoints-damaged/`. Raises UserError if there are
        checkpoints and none can be read, which a changed config explains better than damage.
        """
        failed: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._restore(step, like, data)
            except Exception as error:  # orbax has no type of its own for a damaged file
                failed[step] = error
                continue
            for damaged, error in failed.items():
                self._set_aside(damaged, error)
            return state
        if failed:
            step, error = next(iter(failed.items()))
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(
                f"no checkpoint in {self._folder} can be read (newest: {step}, {reason}). "
                "If config.ema_decay, config.data.num_workers or the number of hosts has changed, "
                "set it back; otherwise pass another --workdir, or remove this one to start again."
            ) from error
        return None

    def _restore(self, step: int, like: TrainState, data: Any) -> TrainState:
        sharding = replicated()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        params, rest = _items(abstract)
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(params),
            rest=ocp.args.StandardRestore(rest),
            data=grain.checkpoint.CheckpointRestore(data),
        )
        restored = self._manager.restore(step, args=items)
        rest = dict(restored["rest"])
        raw = rest.pop("raw")
        if like.ema is None:
            return TrainState(params=restored["params"], ema=None, **rest)
        return TrainState(params=raw, ema=restored["params"], **rest)

    def _set_aside(self, step: int, error: Exception) -> None:
        aside = self._folder.with_name(f"{FOLDER}-damaged")
        aside.mkdir(exist_ok=True)
        logging.warning(
            "checkpoint %s is damaged (%s); moved to %s", self._folder / str(step), error, aside
        )
        os.replace(self._folder / str(step), aside / f"{step}-{os.getpid()}")
        self._manager.reload()


def _score(scores: dict[str, float] | None) -> float:
    """Returns what checkpoints are ranked by; unscored ones come last."""
    return (scores or {}).get(SCORE, -math.inf)


def _items(state: TrainState) -> tuple[Any, dict[str, Any]]:
    """Splits a state into the items `params` and `rest`."""
    rest = {
        "raw": {} if state.ema is None else state.params,
        "opt_state": state.opt_state,
        "step": state.step,
        "skipped": state.skipped,
        "skipped_in_row": state.skipped_in_row,
    }
    return state.weights, rest
