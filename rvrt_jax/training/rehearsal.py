"""A dry run: what a run would take, from checks and a few steps that change and write nothing."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rvrt_jax import parallel
from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError
from rvrt_jax.training import checkpoint, flops, hosts, optim, run_folder, state, step
from rvrt_jax.training.feed import explained
from rvrt_jax.training.logs import device_memory, duration
from rvrt_jax.training.recipe import Recipe
from rvrt_jax.training.settings import Settings
from rvrt_jax.training.state import TrainState
from rvrt_jax.training.stop import StopRequest

STEPS = 3  # that are timed, after one to warm up
ROUNDS = 3  # batches of every worker that are timed
STEADY = 1.1  # times as long as those before
SHORTEST, LONGEST = 3.0, 60.0  # seconds for the input, half of them for what was made ahead

Data = Iterator[dict[str, np.ndarray]]


class _Stopped(Exception):
    """A signal has come, on this host or another one."""


def rehearse(recipe: Recipe, workdir: Path, data: Data, stop: StopRequest) -> bool:
    """Looks at what a run in `workdir` needs, takes a few steps, and prints what it would take.

    The results of the steps are dropped. The step is that of the run's end, when all groups learn:
    the most costly one. Returns False if a signal has stopped it. Raises UserError as the run
    would.
    """
    like = state.abstract(recipe.settings, recipe.model)
    try:
        lines = _look(recipe, workdir, like)
        current = hosts.agree(lambda: _start(recipe, workdir, like))
        _leave_if_stopped(stop)
        lines += _report(recipe, current, data, stop)
        done = True
    except _Stopped:
        lines, done = [f"stopped by {stop.signal or 'another host'}."], False
    if parallel.is_first_host():
        print("\n".join([*lines, "dry run: nothing was written"]))
    return done


def _look(recipe: Recipe, workdir: Path, like: TrainState) -> list[str]:
    """Checks the folder, the disk and what else must be installed; returns what to say."""
    compute_fields = recipe.model.compute_fields
    changes = hosts.agree(
        lambda: run_folder.config_changes(workdir, recipe.config, compute_fields=compute_fields)
    )
    hosts.agree(lambda: _check_packages(recipe.settings))
    hosts.agree(lambda: checkpoint.check_room(workdir, like))
    newest = hosts.exchange(hosts.agree(lambda: str(max(checkpoint.steps(workdir), default=0))))
    for host, other in enumerate(newest):
        if other != newest[0]:
            raise hosts.Agreed(
                f"{workdir} does not show all hosts the same: the newest checkpoint is "
                f"{newest[0]} on host 0 and {other} on host {host}. Pass a --workdir that all "
                "hosts share, such as a network disk."
            )
    return [f"changed in the config since: {'; '.join(changes)}"] if changes else []


def _check_packages(settings: Settings) -> None:
    """Raises UserError if the first host, which alone reports, lacks what the recipe asks for."""
    if not settings.wandb_project or not parallel.is_first_host():
        return
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"config.wandb_project={settings.wandb_project!r} needs Weights & Biases, which is not "
            'installed: pip install wandb, or set it to "".'
        )


def _start(recipe: Recipe, workdir: Path, like: TrainState) -> TrainState:
    """Returns the state that the run would start from."""
    found = checkpoint.peek(workdir, like)
    return state.fresh(recipe.settings, recipe.model, recipe.network) if found is None else found


def _report(recipe: Recipe, current: TrainState, data: Data, stop: StopRequest) -> list[str]:
    """Takes steps and batches; returns what to say of them."""
    settings, model = recipe.settings, recipe.model
    groups = optim.learning_groups(settings, model.parameter_groups())
    program = step.programs(settings, model, groups)(frozenset())
    begin = time.perf_counter()
    batch = parallel.split(_next(data, stop))
    waited = time.perf_counter() - begin
    _leave_if_stopped(stop)
    begin = time.perf_counter()
    compiled = program.lower(current, batch).compile()
    compiling = time.perf_counter() - begin
    _leave_if_stopped(stop)
    taken = _seconds_a_step(program, current, batch)
    _leave_if_stopped(stop)
    fed = _seconds_a_batch(data, recipe.data, settings.batch_size // jax.process_count(), stop)
    _leave_if_stopped(stop)
    fed = max(map(float, hosts.exchange(str(fed))))
    slowest, rate = max(taken, fed), flops.count(program, current, batch) / taken
    done = int(current.step)
    left = max(0, settings.steps - done)
    lines = [f"resuming at step {done} of {settings.steps}"] if done else []
    lines += [
        f"compiled in {compiling:.1f} s; the first batch took {waited:.1f} s",
        f"memory of a device: {_memory(compiled)}",
        f"a step takes {taken:.3f} s ({jax.device_count() * rate / 1e12:.3g} TFLOP/s on "
        f"{jax.device_count()} device(s)), its input {fed:.3f} s: "
        f"{settings.batch_size / slowest:.3g} samples/s",
    ]
    if fed > taken:
        lines += ["the input is the limit; more config.data.num_workers would help"]
    return [*lines, f"{left} steps to the end: {duration(left * slowest)}, without validation"]


def _seconds_a_step(program: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(program(*arguments))
    begin = time.perf_counter()
    for _ in range(STEPS):
        jax.block_until_ready(program(*arguments))
    return (time.perf_counter() - begin) / STEPS


def _seconds_a_batch(data: Data, options: DataOptions, batch_size: int, stop: StopRequest) -> float:
    """Returns how long this host waits for a batch once those that were made ahead are gone."""
    makers = options.num_workers or options.num_threads
    # Beside its share of `prefetch` each has a few in hand. Rather too many: they are not timed.
    ahead = makers * (4 + options.prefetch // batch_size)
    begin = time.perf_counter()

    def take(count: int, longest: float) -> float:
        """Takes so many batches, or fewer; returns the seconds of one."""
        since, taken, late = time.perf_counter(), 0, False
        while taken < count and not late:
            _next(data, stop)
            taken += 1
            late = bool(stop) or time.perf_counter() - begin > longest
        return (time.perf_counter() - since) / taken

    fed = take(ahead, LONGEST / 2)
    while True:
        # Whole rounds, for batches come in bursts. While some are left the rate still falls.
        before, fed = fed, take(ROUNDS * makers, LONGEST)
        elapsed = time.perf_counter() - begin
        if stop or elapsed > LONGEST or (elapsed > SHORTEST and fed <= STEADY * before):
            return fed


def _next(data: Data, stop: StopRequest) -> dict[str, np.ndarray]:
    try:
        return next(data)
    except (OSError, RuntimeError) as error:
        # A worker may have ended by the signal; the other hosts ask next, wherever this one is.
        if stop and isinstance(error, RuntimeError):
            _leave_if_stopped(stop)
        raise explained(error) from error


def _leave_if_stopped(stop: StopRequest) -> None:
    """Raises _Stopped on all hosts if one of them was asked to stop."""
    if hosts.any_of(bool(stop)):
        raise _Stopped


def _memory(compiled: Any) -> str:
    sizes = compiled.memory_analysis()
    program = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    text = f"{program / 2**30:.2f} GiB for state, batch and step"
    peak, limit = device_memory()
    return text + (f", peak {peak / 2**30:.2f} of {limit / 2**30:.2f} GiB" if limit else "")
