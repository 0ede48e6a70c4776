"""The checkpoints of a run, from which it resumes exactly.

A checkpoint has three items. `params` are the weights to evaluate (the average where there is
one), alone, so that they load without the rest; `rest` is all else of the state; `data` is the
position of the input pipeline. Kept are the latest two and the best by validation.
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

import grain.checkpoint
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rvrt_jax import parallel
from rvrt_jax.errors import UserError
from rvrt_jax.training.state import TrainState
from rvrt_jax.weights import runs
from rvrt_jax.weights.runs import FOLDER

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
        latest = preservation_policy.LatestN(LATEST)
        best = preservation_policy.BestN(get_metric_fn=runs.score, n=1)
        options = ocp.CheckpointManagerOptions(
            best_fn=runs.score,  # without it orbax would not store the scores
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,  # half-written ones of a killed run
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        # Of a full disk each array would report on its own, beside the error that is raised.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing():
            self._manager.close()

    def latest(self) -> int | None:
        """Returns the step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """Returns the step and score of the best checkpoint on disk, None before any was scored."""
        with self._writing():
            self._manager.wait_until_finished()
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

    def save(self, step: int, state: TrainState, data: Any, *, scores: dict | None = None) -> None:
        """Starts writing a checkpoint; it appears under its name only when it is complete.

        data: the grain iterator. scores: of the validation at this step, if there was one. Raises
        UserError if this or the one before, which is waited for, cannot be written (a full disk).
        """
        params, rest = _items(parallel.to_all_hosts(state))
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            rest=ocp.args.StandardSave(rest),
            data=grain.checkpoint.CheckpointSave(data),
        )
        with self._writing():
            self._manager.save(step, args=items, metrics=scores or {}, force=True)

    def restore(self, like: TrainState, data: Any) -> TrainState | None:
        """Returns the newest readable state and moves the iterator `data` there; None if none is.

        like: a state of the same structure, or its shapes and dtypes. The number of devices and
        hosts may differ from that of the run so far. A newer checkpoint that cannot be read is
        named and moved to `checkpoints-damaged/`. Raises UserError if there are checkpoints and
        none can be read, which a changed config explains better than damage.
        """
        failed: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._restore(step, like)
                data.set_state(self._position(step))
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
                f"no checkpoint in {self._folder} can be read (newest: {step}, {reason}). If the "
                "config has changed, set it back; otherwise pass another --workdir, or remove "
                "this one to start again."
            ) from error
        return None

    def _restore(self, step: int, like: TrainState) -> TrainState:
        sharding = parallel.over_hosts()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        params, rest = _items(abstract)
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(params), rest=ocp.args.StandardRestore(rest)
        )
        restored = self._manager.restore(step, args=items)
        rest = dict(restored["rest"])
        raw = rest.pop("raw")
        if like.ema is None:
            state = TrainState(params=restored["params"], ema=None, **rest)
        else:
            state = TrainState(params=raw, ema=restored["params"], **rest)
        return parallel.to_this_host(state)

    def _position(self, step: int) -> dict[str, Any]:
        """Returns this host's position in its data.

        All hosts have taken as many batches, so that where their number has changed, any one's
        position is every one's.
        """
        folder = self._folder / str(step) / "data"
        own = folder / f"process_{jax.process_index()}-of-{jax.process_count()}.json"
        file = own if own.is_file() else min(folder.glob("process_0-of-*.json"), default=own)
        return json.loads(file.read_text())

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
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
            free = shutil.disk_usage(self._folder).free
            self._manager.reload()
            complete = self._manager.all_steps()
            raise UserError(
                f"a checkpoint could not be written to {self._folder} "
                f"({'the disk is full' if full else reason}; {_mib(free)} MiB free). Make room and "
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
