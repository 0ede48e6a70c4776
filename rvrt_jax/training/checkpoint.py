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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rvrt_jax import files, parallel
from rvrt_jax.errors import UserError, describe
from rvrt_jax.training import hosts, reading
from rvrt_jax.training.reading import Damaged
from rvrt_jax.training.state import TrainState
from rvrt_jax.weights import runs
from rvrt_jax.weights.runs import FOLDER

METRICS = "metrics"  # where orbax keeps scores: in a file of this name in such a folder
LATEST = 2  # how many of the latest are kept


def exists(workdir: Path) -> bool:
    """Tells whether a run has got as far as a checkpoint, whole or not."""
    try:
        # Not asked for by name: network disks remember for long what was not there.
        begun = FOLDER in os.listdir(workdir)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return begun and any((workdir / FOLDER).glob("[0-9]*"))


def steps(workdir: Path) -> list[int]:
    """Returns the steps of the checkpoints that are whole, in order; changes nothing."""
    if not exists(workdir):
        return []
    return sorted(int(path.name) for path in (workdir / FOLDER).iterdir() if path.name.isdigit())


def peek(workdir: Path, like: TrainState) -> TrainState | None:
    """Returns the newest readable state, as `Checkpoints.restore` does, but changes nothing.

    Waits for no other host. Raises UserError if the disk cannot be read or all are damaged.
    """
    damaged: list[tuple[int, Damaged]] = []
    folder = workdir / FOLDER
    for step in reversed(steps(workdir)):
        try:
            return _restore(folder, step, like)
        except Damaged as error:
            logging.warning("checkpoint %s is damaged (%s)", folder / str(step), error)
            damaged.append((step, error))
    if damaged:
        raise UserError(_all_damaged(folder, *damaged[0])) from damaged[0][1]
    return None


def check_room(workdir: Path, like: TrainState) -> None:
    """Raises UserError if the disk cannot take the checkpoints that a run will keep.

    like: a state, or its shapes and dtypes. The folder need not exist yet.
    """
    folder = workdir / FOLDER
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like))
    wanted = size * max(1, LATEST + 2 - len(steps(workdir)))
    disk = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if free < wanted:
        raise UserError(
            f"{folder} has {_mib(free)} MiB free; its checkpoints, {_mib(size)} MiB each, need "
            f"{_mib(wanted)}. Make room, or pass another --workdir."
        )


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending writes at the end.

    On several hosts all of them call every method, and the folder is one that all of them see.
    """

    def __init__(self, workdir: Path) -> None:
        self._folder = workdir.absolute() / FOLDER
        self._failed = False  # this host could not write
        self._openings = 0
        # Opening is one act of all hosts, so that none can try it again on its own.
        hosts.agree(lambda: files.patiently(lambda: exists(workdir)))
        self._manager = files.patiently(self._open) if hosts.alone() else self._open()
        # Of a full disk each array would report on its own, beside the error that is raised.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def _open(self) -> ocp.CheckpointManager:
        latest = preservation_policy.LatestN(LATEST)
        best = preservation_policy.BestN(get_metric_fn=runs.score, n=1)
        options = ocp.CheckpointManagerOptions(
            best_fn=runs.score,  # without it orbax would not store the scores
            preservation_policy=preservation_policy.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,  # half-written ones of a killed run
            temporary_path_class=_half_written(self._openings),
        )
        self._openings += 1
        return ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        self._listener = _Listener(lambda error: hosts.abandon(self._explained(error)))
        if not hosts.alone():
            logging.getLogger("absl").addHandler(self._listener)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        logging.getLogger("absl").removeHandler(self._listener)
        if kind is KeyboardInterrupt:  # a second one: the end is to come at once
            return
        if not hosts.alone() and (self._failed or kind and not issubclass(kind, hosts.Agreed)):
            return  # the others do not come to close it as well
        try:
            with self._writing():
                self._manager.close()
        except UserError as error:
            if kind is None:
                raise
            logging.warning("%s", error)  # the error that ends the run is another one

    def latest(self) -> int | None:
        """Returns the step of the newest checkpoint, None where there is none."""
        return hosts.told_by_first(self._manager.latest_step)

    def best(self) -> tuple[int, float] | None:
        """Returns the step and score of the best checkpoint on disk, None before any was scored."""
        self.wait()

        def find() -> tuple[float, int]:
            steps = self._manager.all_steps()
            scores = [(runs.score(self._manager.metrics(step)), step) for step in steps]
            return max(scores, default=(-math.inf, 0))

        score, step = hosts.told_by_first(find)
        return (step, score) if math.isfinite(score) else None

    def check_space(self, like: TrainState) -> None:
        """Raises UserError if the disk cannot take the checkpoints that a run will keep."""
        hosts.agree(lambda: check_room(self._folder.parent, like))

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

        def write() -> None:
            if parallel.is_first_host():
                folder = self._folder / str(step) / METRICS
                with self._writing():
                    files.write_text(folder / METRICS, json.dumps(scores))

        hosts.agree(write)
        self._manager.reload()

    def is_scored(self, step: int) -> bool:
        """Returns whether the checkpoint of a step holds scores."""
        return hosts.told_by_first(lambda: math.isfinite(runs.score(self._manager.metrics(step))))

    def restore(self, like: TrainState) -> TrainState | None:
        """Returns the newest readable state; None if there is none.

        like: a state of the same structure, or its shapes and dtypes. The number of devices and
        hosts may differ from that of the run so far. A newer checkpoint that is damaged is named
        and moved to `checkpoints-damaged/`, if all hosts find it so. Raises UserError if the disk
        cannot be read, if some hosts alone find damage, or if there are checkpoints and all are
        damaged, which a changed config explains better.
        """
        damaged: dict[int, Damaged] = {}
        steps = hosts.told_by_first(lambda: sorted(self._manager.all_steps(), reverse=True))
        for step in steps:
            try:
                state = self._restore_together(step, like)
            except Damaged as error:
                damaged[step] = error
                continue
            for one, error in damaged.items():
                self._set_aside(one, error)
            return state
        if damaged:
            step, error = next(iter(damaged.items()))
            raise hosts.Agreed(_all_damaged(self._folder, step, error)) from error
        return None

    def _restore_together(self, step: int, like: TrainState) -> TrainState:
        """Reads a checkpoint on every host.

        Raises Damaged if it is damaged on all of them, Agreed if it cannot be had on some.
        """

        def attempt() -> tuple[TrainState | None, Damaged | None]:
            try:
                return _restore(self._folder, step, like), None
            except Damaged as error:
                return None, error

        state, damage = hosts.agree(attempt)
        reports = hosts.exchange("" if damage is None else str(damage))
        if damage is not None and all(reports):
            raise damage
        for host, report in enumerate(reports):
            if report:
                raise hosts.Agreed(
                    f"checkpoint {self._folder / str(step)} is damaged as host {host} sees it "
                    f"({report}), and whole as host {reports.index('')} does, so nothing was "
                    f"changed. Look after the disk on host {host}, or mount it again, and start "
                    "the same command again on all hosts."
                )
        assert state is not None
        return state

    def _set_aside(self, step: int, error: Exception) -> None:
        aside = self._folder.with_name(f"{FOLDER}-damaged")
        logging.warning(
            "checkpoint %s is damaged (%s); moved to %s", self._folder / str(step), error, aside
        )

        def move() -> None:
            if parallel.is_first_host():
                aside.mkdir(exist_ok=True)
                os.replace(self._folder / str(step), aside / f"{step}-{os.getpid()}")

        hosts.agree(move)
        self._manager.reload()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a failure to write, which may come a step late, into a UserError."""
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore's errors are ValueErrors
            self._failed = True
            if hosts.alone():  # it is not done with the one that failed
                # Nothing public waits for the thread that writes, once another has failed.
                writer = self._manager._checkpointer
                assert isinstance(writer, ocp.AsyncCheckpointer)
                with contextlib.suppress(Exception):  # the same one again, or its consequence
                    writer.wait_until_finished()
                self._manager = files.patiently(self._open)
            raise self._explained(error) from error

    def _explained(self, error: BaseException) -> UserError:
        """Says what a failure to write means."""
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full" if full else describe(error)
        free = shutil.disk_usage(self._folder).free
        complete = [int(path.name) for path in self._folder.glob("*") if path.name.isdigit()]
        return UserError(
            f"a checkpoint could not be written to {self._folder} "
            f"({reason}; {_mib(free)} MiB free). Make room and "
            "start the same command again: it goes on from "
            f"{f'step {max(complete)}' if complete else 'the start'}."
        )


def _half_written(opening: int) -> type[ocp.path.atomicity.AtomicRenameTemporaryPath]:
    """Returns where orbax writes what is not complete: a folder of its own for each opening, as
    what tensorstore had begun when a write failed goes on, and must not meet the next one's files.
    """

    class Own(ocp.path.atomicity.AtomicRenameTemporaryPath):
        @classmethod
        def from_final(cls, final_path: Any, **options: Any) -> "Own":
            own = super().from_final(final_path, **options)
            path = own.get()
            number = f"-{opening}" if opening else ""
            return cls(path.with_name(path.name + number), final_path, **options)

    return Own


def _restore(folder: Path, step: int, like: TrainState) -> TrainState:
    params, rest = _items(like)
    read = reading.read(folder / str(step), {"params": params, "rest": rest})
    rest = dict(read["rest"])
    raw = rest.pop("raw")
    if like.ema is None:
        state = TrainState(params=read["params"], ema=None, **rest)
    else:
        state = TrainState(params=raw, ema=read["params"], **rest)
    return jax.device_put(state, parallel.replicated())


class _Listener(logging.Handler):
    """Hears of failures in orbax's threads, which on several hosts tell of them in the log alone.

    The threads then wait for the other hosts, which wait for them: for 20 minutes.
    """

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        super().__init__(logging.ERROR)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.filename == "async_checkpointer.py" and record.exc_info and record.exc_info[1]:
            self._tell(record.exc_info[1])


def _all_damaged(folder: Path, newest: int, error: Damaged) -> str:
    return (
        f"no checkpoint in {folder} can be read (newest: {newest}, {error}). If the config has "
        "changed, set it back; otherwise pass another --workdir, or remove this one to start again."
    )


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
