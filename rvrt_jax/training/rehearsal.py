"""A dry run: what a run would take, from a few steps that change and write nothing."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rvrt_jax import parallel
from rvrt_jax.models.contract import Network
from rvrt_jax.training import flops, optim, step
from rvrt_jax.training.logs import device_memory, duration
from rvrt_jax.training.settings import Settings
from rvrt_jax.training.state import TrainState

STEPS = 3  # that are timed, after one to warm up


def report(
    settings: Settings, model: Network, current: TrainState, data: Iterator[dict[str, np.ndarray]]
) -> list[str]:
    """Takes a few steps from `current`, whose results are dropped; returns what to print.

    The step is that of the run's end, when all groups learn: the most costly one.
    """
    groups = optim.learning_groups(settings, model.parameter_groups())
    program = step.programs(settings, model, groups)(frozenset())
    start = time.perf_counter()
    batch = parallel.split(next(data))
    waited = time.perf_counter() - start
    start = time.perf_counter()
    compiled = program.lower(current, batch).compile()
    compiling = time.perf_counter() - start
    jax.block_until_ready(program(current, batch))
    start = time.perf_counter()
    for _ in range(STEPS):
        jax.block_until_ready(program(current, batch))
    taken = (time.perf_counter() - start) / STEPS
    start = time.perf_counter()
    for _ in range(STEPS):
        next(data)
    fed = (time.perf_counter() - start) / STEPS
    rate = settings.batch_size / max(taken, fed)
    left = settings.steps - int(current.step)
    operations = jax.device_count() * flops.count(program, current, batch)
    return [
        f"compiled in {compiling:.1f} s; the first batch took {waited:.1f} s",
        f"memory of a device: {_memory(compiled)}",
        f"a step takes {taken:.3f} s ({operations / taken / 1e12:.3g} TFLOP/s on "
        f"{jax.device_count()} device(s)), its input {fed:.3f} s: {rate:.3g} samples/s",
        f"{left} steps to the end: {duration(left * max(taken, fed))}, without validation",
        "dry run: nothing was written",
    ]


def _memory(compiled: Any) -> str:
    sizes = compiled.memory_analysis()
    program = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    text = f"{program / 2**30:.2f} GiB for state, batch and step"
    peak, limit = device_memory()
    return text + (f", peak {peak / 2**30:.2f} of {limit / 2**30:.2f} GiB" if limit else "")
