"""Data parallelism: the only module that knows `jax.pmap`, devices and hosts.

A host here is a process: a machine of a TPU pod, or one of several processes on a machine. Between
steps the state lives whole on every local device; only a checkpoint sees it as one array over all
hosts, which is how orbax writes what several hosts share.

No host may wait for one that has given up. What one host can find out alone (is the data there,
which checkpoint can be read) is done within `agree`, after which all go on or all stop; in the
loop hosts vote with every step. A host that fails elsewhere says so to the others, which end within
a minute (`watching`), as they do when one is killed (`HEARTBEAT`).
"""

import concurrent.futures
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # the key-value store of the hosts has no public name
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rvrt_jax.errors import UserError

AXIS = "devices"
VOTES = "votes"  # the metric that tells every host what any of them wants
HEARTBEAT = 30  # seconds after which a host that is not heard of counts as dead
POLL = 3.0  # seconds between two looks at whether another host has failed
GRACE = 20.0  # seconds in which a host may end by itself after another has failed
_WAIT = 3600  # seconds that a host waits for the others to be as far
_FAILED = "rvrt/failed"
_meetings = itertools.count()  # all hosts meet in the same order

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
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--multihost: the processes could not be joined ({reason}). Start the same command "
            "on every host; outside TPU pods and known clusters pass --coordinator=HOST:PORT, "
            "--num_processes and --process_id."
        ) from error


def is_first_host() -> bool:
    """Tells whether this process is the one that writes logs and prints."""
    return jax.process_index() == 0


def sum_over_hosts(values: np.ndarray) -> np.ndarray:
    """Returns the sum of every host's array; all hosts must call it."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(axis=0)


def exchange(value: str) -> list[str]:
    """Returns the values of all hosts, in order; all hosts must call it."""
    if jax.process_count() == 1:
        return [value]
    client = distributed.global_state.client
    assert client is not None
    key = f"rvrt/meeting/{next(_meetings)}"
    client.key_value_set(f"{key}/{jax.process_index()}", value)
    client.wait_at_barrier(f"{key}/met", 1000 * _WAIT)
    found = client.key_value_dir_get(key)
    return [text for _, text in sorted((int(k.rsplit("/", 1)[1]), text) for k, text in found)]


def agree(action: Callable[[], Result]) -> Result:
    """Calls `action` on every host; returns its result if it worked on all of them.

    The action must not wait for other hosts. Raises its error on a host where it failed, and
    UserError with the reason on the others.
    """
    if jax.process_count() == 1:
        return action()
    try:
        result = action()
    except Exception as error:
        exchange(describe(error))
        raise
    for host, reason in enumerate(exchange("")):
        if reason:
            raise UserError(f"host {host} cannot go on: {reason}")
    return result


def describe(error: BaseException) -> str:
    """Returns the first line of an error, with its type unless it is meant for the user."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Takes the other hosts down, with the reason, if what is inside raises an exception.

    And ends this process if that happens to another one, in case that it waits for the other.
    """
    client = distributed.global_state.client
    if jax.process_count() == 1 or client is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            others = [pair for pair in client.key_value_dir_get(_FAILED) if pair[0] != own]
            if others and not over.wait(GRACE):
                host = others[0][0].rsplit("/", 1)[1]
                print(f"error: host {host} has failed: {others[0][1]}", file=sys.stderr, flush=True)
                os._exit(1)

    own = f"{_FAILED}/{jax.process_index()}"
    threading.Thread(target=watch, daemon=True, name="watch the other hosts").start()
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator is dead as well
            client.key_value_set(own, describe(error), allow_overwrite=True)
        raise
    finally:
        over.set()


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


def check_batch(batch_size: int, *, accumulate: int = 1) -> None:
    """Raises UserError unless the global batch splits evenly over the devices (and steps)."""
    parts = jax.device_count() * accumulate
    if batch_size % parts:
        nearest = max(parts, batch_size // parts * parts)
        share, rest = divmod(batch_size, jax.device_count())
        smaller = max((n for n in range(1, accumulate) if share % n == 0), default=0)
        way_out = f"--config.batch_size={nearest}"
        if not rest and smaller:
            way_out = f"--config.accumulate={smaller}"
        of_accumulation = f" x config.accumulate={accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size={batch_size} does not divide over {jax.device_count()} device(s)"
            f"{of_accumulation}. Pass {way_out}, or show fewer devices to JAX "
            "(CUDA_VISIBLE_DEVICES, JAX_NUM_CPU_DEVICES)."
        )


def replicated() -> NamedSharding:
    """Returns the sharding of the state: whole on every local device, as `data_parallel` has it.

    A state that starts with any other sharding makes the step compile twice.
    """
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec())


def over_hosts() -> NamedSharding:
    """Returns the sharding of a state in a checkpoint: whole on every device of every host."""
    return NamedSharding(_all_devices(), PartitionSpec())


def _all_devices() -> Mesh:
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def to_all_hosts(tree: Any) -> Any:
    """Turns arrays that are whole and equal on every host into the same over all hosts."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(
        jax.device_get(tree), _all_devices(), PartitionSpec()
    )


def to_this_host(tree: Any) -> Any:
    """Undoes `to_all_hosts`."""
    if jax.process_count() == 1:
        return tree
    local = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)
    return jax.device_put(local, replicated())


@dataclass(frozen=True)
class Votes:
    """What a host wants; for all of them, what any does.

    stop: training is to stop. save: a checkpoint is due. drop: this step is to change nothing,
    because a host has no batch for it.
    """

    stop: bool = False
    save: bool = False
    drop: bool = False

    @classmethod
    def read(cls, values: Any) -> "Votes":
        """Returns what the metric `VOTES` of a step says."""
        return cls(*map(bool, np.asarray(values)))


def data_parallel(step: Callable[..., Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Compiles `step(state, batch) -> (state, metrics)` for all devices.

    The state goes in and comes out without a device axis (the same on every device, which the
    step ensures by averaging over `AXIS`), the batch comes from `split`. The state is not
    donated: its buffers may still be on their way to a checkpoint while the next step runs.
    """

    def with_votes(state: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        batch = dict(batch)
        votes = jax.lax.pmax(batch.pop(VOTES), AXIS)
        new, metrics = step(state, batch)
        drop = votes[2].astype(bool)
        state = jax.tree.map(lambda old, new: jnp.where(drop, old, new), state, new)
        return state, metrics | {VOTES: votes}

    return jax.pmap(with_votes, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None))


def split(batch: dict[str, np.ndarray], votes: Votes = Votes()) -> dict[str, np.ndarray]:
    """Cuts each [b, ...] of this process into [d, b/d, ...] for its d devices.

    votes: of this host; the step's metrics tell all hosts.
    """
    devices = jax.local_device_count()
    parts = {k: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]) for k, x in batch.items()}
    ballot = np.array([votes.stop, votes.save, votes.drop], np.int32)
    return parts | {VOTES: np.tile(ballot, (devices, 1))}
