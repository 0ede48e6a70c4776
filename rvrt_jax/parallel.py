"""Data parallelism: the only module that knows `jax.pmap` and the number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rvrt_jax.errors import UserError

AXIS = "devices"


def check_batch(batch_size: int, *, accumulate: int = 1) -> None:
    """Raises UserError unless the global batch splits evenly over the devices (and steps)."""
    parts = jax.device_count() * accumulate
    if batch_size % parts:
        nearest = max(parts, batch_size // parts * parts)
        of_accumulation = f" x config.accumulate={accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size={batch_size} does not divide over {jax.device_count()} device(s)"
            f"{of_accumulation}. Pass --config.batch_size={nearest}, or show fewer devices to JAX "
            "(CUDA_VISIBLE_DEVICES, JAX_NUM_CPU_DEVICES)."
        )


def replicated() -> NamedSharding:
    """Returns the sharding of the state: whole on every device, as `data_parallel` leaves it.

    A state that starts with any other sharding makes the step compile twice.
    """
    return NamedSharding(Mesh(np.asarray(jax.devices()), (AXIS,)), PartitionSpec())


def data_parallel(step: Callable[..., Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Compiles `step(state, batch) -> (state, metrics)` for all devices.

    The state goes in and comes out without a device axis (the same on every device, which the
    step ensures by averaging over `AXIS`), the batch comes from `split`. The state is not
    donated: its buffers may still be on their way to a checkpoint while the next step runs.
    """
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None))


def split(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cuts each [b, ...] of this process into [d, b/d, ...] for its d devices."""
    devices = jax.local_device_count()
    return {k: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]) for k, x in batch.items()}
