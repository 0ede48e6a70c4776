"""Data parallelism: the only module that knows `jax.pmap`, devices and hosts.

A host here is a process: a machine of a TPU pod, or one of several processes on a machine. Between
steps the state lives whole on every local device; only a checkpoint sees it as one array over all
hosts, which is how orbax writes what several hosts share.
"""

import concurrent.futures
import importlib.util
import math
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rvrt_jax.errors import UserError

AXIS = "devices"
# What a host can ask for with a step; its metrics tell all of them whether any did. stop: after
# this step. save: a checkpoint of it. drop: the step must not count, for this host had no batch.
STOP, SAVE, DROP = VOTES = ("stop", "save", "drop")
HEARTBEAT = 30  # seconds of silence after which a host counts as dead, and JAX ends the others

# What `--matmul_precision` offers, in JAX's names; float32 is what the networks ask for themselves.
MATMUL_PRECISIONS = {"float32": None, "tf32": "tensorfloat32"}
# How near to the best the blocks of a convolution must be for TPUs' compiler to end its search.
GOOD_ENOUGH = "xla_jf_convolution_performance_target", "0.9"

Device = Any  # a jax.Device, which type checkers do not see as a class
Item = TypeVar("Item")
Result = TypeVar("Result")


def join_hosts(
    *, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins this process with the others of the run; before any device is touched.

    coordinator: HOST:PORT of process 0, which all can reach. Without any of the three, what the
    environment says is taken: a TPU pod, Slurm, Open MPI, Kubernetes.
    Raises UserError for an incomplete set, and if the others do not answer.
    """
    given = {
        "--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id
    }  # fmt: skip
    missing = [flag for flag, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(
            f"{', '.join(missing)} missing: a plain cluster needs all of {', '.join(given)}; on a "
            "TPU pod or under Slurm pass --multihost alone."
        )
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(
            f"--process_id={process_id} with --num_processes={num_processes}; the processes are "
            f"numbered from 0 to {num_processes - 1}."
        )
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--multihost: the processes could not be joined ({reason}). Start the same command "
            "on every host; outside TPU pods and known clusters pass --coordinator=HOST:PORT, "
            "--num_processes and --process_id."
        ) from error


def search_less_on_tpus() -> None:
    """Has TPUs' compiler take a convolution's first blocks that are good enough, not the best.

    The search takes it long and finds none that it expects to be much better: a level of the flow
    network compiled in 16 s of a core, not in 53 (docs/benchmarks.md). A flag that it does not know
    ends the process, so that its library must name this one. What LIBTPU_INIT_ARGS says of it
    already stays. To be called before JAX has a device.
    """
    flag, value = GOOD_ENOUGH
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    found = importlib.util.find_spec("libtpu")
    if flag in given or found is None or found.origin is None:
        return
    library = Path(found.origin).with_name("libtpu.so")
    if not library.is_file() or not library.stat().st_size:
        return
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as code:
        known = code.find(flag.encode()) >= 0
    if known:
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} --{flag}={value}".strip()


def choose_matmul_precision(name: str) -> None:
    """Computes products of float32 numbers in `name` from now on: "float32" or "tf32".

    "tf32" rounds factors to 10 bits on NVIDIA GPUs and to 16 on TPUs, and changes nothing on CPUs;
    flow and sampling offsets stay exact (`ops.precision`).
    """
    jax.config.update("jax_default_matmul_precision", MATMUL_PRECISIONS[name])


def is_first_host() -> bool:
    """Tells whether this process is the one that writes logs and prints."""
    return jax.process_index() == 0


def sum_over_hosts(values: np.ndarray) -> np.ndarray:
    """Returns the sum of every host's array; all hosts must call it."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(axis=0)


def share_devices(
    function: Callable[[Device, Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Calls `function(device, item)` for all items, each local device taking the next one free.

    What the function computes lands on its device by default. Returns the results in the order of
    the items. An exception of one call is raised, once the calls under way have ended.
    """
    devices = jax.local_devices()
    own = threading.local()
    free = list(devices)

    def take_device() -> None:
        own.device = free.pop()

    def call(item: Item) -> Result:
        with jax.default_device(own.device):
            return function(own.device, item)

    if len(devices) == 1:
        return [function(devices[0], item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(len(devices), initializer=take_device) as pool:
        try:
            return list(pool.map(call, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def check_batch(batch_size: int, *, batch_scale: int = 1, accumulate: int = 1) -> None:
    """Raises UserError unless the global batch splits evenly over the devices (and steps).

    The arguments are what a recipe says, so that what the message advises can be passed as it is.
    """
    devices = jax.device_count()
    parts, total = devices * accumulate, batch_size * batch_scale
    if total % parts == 0:
        return
    share, rest = divmod(total, devices)
    if not rest:
        smaller = max(n for n in range(1, accumulate) if share % n == 0)
        way_out = f"--config.accumulate={smaller}"
    else:
        unit = parts // math.gcd(batch_scale, parts)
        nearest = max(unit, batch_size // unit * unit)
        scale = parts // math.gcd(batch_size, parts)
        ratio = nearest / batch_size
        way_out = (
            f"--config.batch_size={nearest} with {1 / ratio:.3g} times the steps and "
            f"{math.sqrt(ratio):.3g} times the learning rate, or --config.batch_scale={scale}, "
            f"which trains on {scale * batch_size} clips a step and sets both by that rule "
            "(docs/pods.md)"
        )
    of_scale = f" x config.batch_scale={batch_scale}" if batch_scale > 1 else ""
    over = f"{devices} device(s)"
    over += f" x config.accumulate={accumulate}" if accumulate > 1 else ""
    raise UserError(
        f"config.batch_size={batch_size}{of_scale} does not divide over {over}. Pass {way_out}, "
        "or show fewer devices to JAX (CUDA_VISIBLE_DEVICES, JAX_NUM_CPU_DEVICES)."
    )


def replicated() -> NamedSharding:
    """Returns the sharding of the state: whole on every local device, as `data_parallel` has it.

    A state that starts with any other sharding makes the step compile twice.
    """
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec())


def _all_devices() -> Mesh:
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def to_all_hosts(tree: Any) -> Any:
    """Turns arrays that are whole and equal on every host into the same over all hosts."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(
        jax.device_get(tree), _all_devices(), PartitionSpec()
    )


def data_parallel(step: Callable[..., Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Compiles `step(state, batch) -> (state, metrics)` for all devices.

    The state goes in and comes out without a device axis (the same on every device, which the
    step ensures by averaging over `AXIS`), the batch comes from `split`. The state is not
    donated: its buffers may still be on their way to a checkpoint while the next step runs.
    On several hosts a step that one of them drops leaves the state as it was.
    """

    def with_votes(state: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        batch = dict(batch)
        votes = {name: jax.lax.pmax(batch.pop(name), AXIS) for name in VOTES}
        new, metrics = step(state, batch)
        if jax.process_count() > 1:
            dropped = votes[DROP] > 0
            new = jax.tree.map(lambda a, b: jnp.where(dropped, b, a), new, state)
        return new, metrics | votes

    return jax.pmap(with_votes, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None))


def split(
    batch: dict[str, np.ndarray], *, stop: bool = False, save: bool = False, drop: bool = False
) -> dict[str, np.ndarray]:
    """Cuts each [b, ...] of this process into [d, b/d, ...] for its d devices.

    stop, save, drop: what this host votes for.
    """
    devices = jax.local_device_count()
    parts = {k: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]) for k, x in batch.items()}
    votes = {STOP: stop, SAVE: save, DROP: drop}
    return parts | {name: np.full(devices, vote, np.int32) for name, vote in votes.items()}
