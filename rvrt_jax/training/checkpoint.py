"""The checkpoints of a run, from which it resumes exactly.

A checkpoint has two items. `params` are the weights to evaluate (the average where there is one),
alone, so that they load without the rest; `rest` is all else of the state. The position in the data
is the step. Older ones have a third item, `data`, which nobody needs. Kept are the latest two and
the best by validation.
"""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rvrt_jax import files, parallel
from rvrt_jax.errors import UserError, describe
from rvrt_jax.training import reading
from rvrt_jax.training.reading import Damaged
from rvrt_jax.training.state import TrainState
from rvrt_jax.weights import runs
from rvrt_jax.weights.runs import FOLDER

METRICS = "metrics"  # where orbax keeps scores: in a file of this name in such a folder
LATEST = 2  # how many of the latest are kept


def exists(workdir: Path) -> bool:
    """Tells whether a run has got as far as a checkpoint, whole or not."""
    return any((workdir / FOLDER).glob("[0-9]*"))


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending writes at the end.

    On several hosts all of them call every method, and the folder is one that all of them see.
    """

    def __init__(self, workdir: Path) -> None:
        self._folder = workdir.absolute() / FOLDER
        self._manager = reading.patiently(self._open)
        # Of a full disk each array would report on its own, beside the error that is raised.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def _open(self) -> ocp.CheckpointManager:
        latest = preservation_policy.LatestN(LATEST)
        best = preservation_policy.BestN(get_metric_fn=runs.score, n=1)
        options = ocp.CheckpointManagerOptions(
            best_fn=runs.score,  # without it orbax would not store the scores
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,  # half-written ones of a killed run
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:  # a second one: the end is to come at once
            return
        try:
            with self._writing():
                self._manager.close()
        except UserError as error:
            if kind is None:
                raise
            logging.warning("%s", error)  # the error that ends the run is another one

    def latest(self) -> int | None:
        """Returns the step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Returns the step and score of the best checkpoint on disk, None before any was scored."""
        self.wait()
        scored = [
            (runs.score(self._manager.metrics(step)), step) for step in self._manager.all_steps()
        ]
        score, step = max(scored, default=(-math.inf, 0))
        return (step, score) if math.isfinite(score) else None

    def check_space(self, like: TrainState) -> None:
        """Raises UserError if the disk cannot take the checkpoints that a run will keep."""
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
        wanted = size * max(1, LATEST + 2 - len(self._manager.all_steps()))
        free = shutil.disk_usage(self._folder).free
        if free < wanted:
            raise UserError(
                f"{self._folder} has {_mib(free)} MiB free; its checkpoints, {_mib(size)} MiB each,"
                f" need {_mib(wanted)}. Make room, or pass another --workdir."
            )

    def save(self, step: int, state: TrainState) -> None:
        """Starts writing a checkpoint; it appears under its name only when it is complete.

        Raises UserError if this or the one before, which is waited for, cannot be written (a full
        disk).
        """
        params, rest = _items(parallel.to_all_hosts(state))
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params), rest=ocp.args.StandardSave(rest)
        )
        with self._writing():
            self._manager.save(step, args=items, metrics={}, force=True)

    def wait(self) -> None:
        """Returns when what was saved is on disk; raises UserError if it could not be written."""
        with self._writing():
            self._manager.wait_until_finished()

    def add_scores(self, step: int, scores: dict[str, float]) -> None:
        """Writes the scores of a validation to the checkpoint of its step."""
        self.wait()
        with self._writing():
            if parallel.is_first_host():
                folder = self._folder / str(step) / METRICS
                files.write_text(folder / METRICS, json.dumps(scores))
            parallel.wait_for_hosts(f"scores of {step}")
            self._manager.reload()

    def is_scored(self, step: int) -> bool:
        """Returns whether the checkpoint of a step holds scores."""
        return math.isfinite(runs.score(self._manager.metrics(step)))

    def restore(self, like: TrainState) -> TrainState | None:
        """Returns the newest readable state; None if there is none.

        like: a state of the same structure, or its shapes and dtypes. The number of devices and
        hosts may differ from that of the run so far. A newer checkpoint that is damaged is named
        and moved to `checkpoints-damaged/`. Raises UserError if the disk cannot be read, or if
        there are checkpoints and all are damaged, which a changed config explains better.
        """
        damaged: dict[int, Damaged] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._restore(step, like)
            except Damaged as error:
                damaged[step] = error
                continue
            for one, error in damaged.items():
                self._set_aside(one, error)
            return state
        if damaged:
            step, error = next(iter(damaged.items()))
            raise UserError(
                f"no checkpoint in {self._folder} can be read (newest: {step}, {error}). If the "
                "config has changed, set it back; otherwise pass another --workdir, or remove "
                "this one to start again."
            ) from error
        return None

    def _restore(self, step: int, like: TrainState) -> TrainState:
        params, rest = _items(like)
        read = reading.read(self._folder / str(step), {"params": params, "rest": rest})
        rest = dict(read["rest"])
        raw = rest.pop("raw")
        if like.ema is None:
            state = TrainState(params=read["params"], ema=None, **rest)
        else:
            state = TrainState(params=raw, ema=read["params"], **rest)
        return jax.device_put(state, parallel.replicated())

    def _set_aside(self, step: int, error: Exception) -> None:
        aside = self._folder.with_name(f"{FOLDER}-damaged")
        logging.warning(
            "checkpoint %s is damaged (%s); moved to %s", self._folder / str(step), error, aside
        )
        if parallel.is_first_host():
            aside.mkdir(exist_ok=True)
            os.replace(self._folder / str(step), aside / f"{step}-{os.getpid()}")
        parallel.wait_for_hosts(f"set aside {step}")
        self._manager.reload()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a failure to write, which may come a step late, into a UserError."""
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore's errors are ValueErrors
            full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
            reason = "the disk is full" if full else describe(error)
            free = shutil.disk_usage(self._folder).free
            complete = [int(path.name) for path in self._folder.glob("*") if path.name.isdigit()]
            if jax.process_count() == 1:  # it is not done with the one that failed
                self._manager = reading.patiently(self._open)
            raise UserError(
                f"a checkpoint could not be written to {self._folder} "
                f"({reason}; {_mib(free)} MiB free). Make room and "
                "start the same command again: it goes on from "
                f"{f'step {max(complete)}' if complete else 'the start'}."
            ) from error


def _mib(count: int) -> int:
    return -(-count // 2**20)


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
