"""train.py as a command, in processes of their own, while things go wrong."""

import contextlib
import ctypes
import errno
import functools
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
from helpers import noise, standin

from rvrt_jax import files, parallel
from rvrt_jax.training import ahead, hosts
from rvrt_jax.training.stop import ONCE

ROOT = Path(__file__).parents[2]
TIMEOUT = 600  # generous: other work may share the machine
HEARTBEAT = 1000  # a busy machine may keep one of them waiting for long
STALE = "this host meets ESTALE"  # is printed when it does


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker() -> None:
    child, *_ = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGKILL)


def end_group() -> None:
    """Sends SIGTERM to this process and its workers, as a scheduler does."""
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt_in_c() -> None:
    """Waits for ever outside of the interpreter, as for a compiler, and gets Ctrl-C repeatedly."""

    def send() -> None:
        while True:  # where all is busy, two may be heard at once and count as one
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2 * ONCE)

    threading.Thread(target=send, daemon=True).start()
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    for _ in range(2):  # the second time it waits for itself, which no signal ends
        libc.pthread_mutex_lock(mutex)


def no_trace() -> None:
    raise jax.errors.JaxRuntimeError("FAILED_PRECONDITION: profile is not a directory")


def fail(*_: object) -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@contextlib.contextmanager
def stale_from(index: int):
    """Lets the input fail from a sample on, in threads: a network disk that has gone."""
    whole = noise.Noise.map

    def map_stale(self, number: int):
        if number >= index:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return whole(self, number)

    with mock.patch.object(noise.Noise, "map", map_stale):
        yield


def killed_in_meeting():
    """Kills this process when it would meet the others, before any of them waits on a device."""
    return mock.patch.object(hosts, "exchange", lambda value: kill())


def stale() -> None:
    print(STALE, flush=True)
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


# What can go wrong, by name.
FAULTS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "": contextlib.nullcontext,
    "SIGTERM": functools.partial(standin.signalled, signal.SIGTERM, after=1),
    "group": functools.partial(standin.after_step, 1, end_group),
    "kill": functools.partial(standin.after_step, 4, kill),
    "kill in meeting": killed_in_meeting,
    "kill worker": functools.partial(standin.after_step, 1, kill_worker),
    "interrupt": functools.partial(standin.after_step, 1, interrupt_in_c),
    "no trace": functools.partial(mock.patch.object, jax.profiler, "stop_trace", no_trace),
    "no program": functools.partial(mock.patch.object, ahead, "_compile", fail),
    "no input": functools.partial(stale_from, 14),
    "stale once": functools.partial(standin.at, "open */rest/_METADATA", stale),
    "cannot read": functools.partial(standin.failing, "open */rest/_METADATA", errno.EIO, times=99),
    "full": functools.partial(standin.failing, "open *.orbax-checkpoint-tmp/*", errno.ENOSPC),
}


def train(
    arguments: Sequence[str], fault: str, cache: str, log: str, heartbeat: int = HEARTBEAT
) -> None:
    """Runs train.py with the stand-ins and ends as it does; it prints to the file `log`."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    jax.config.update("jax_default_matmul_precision", "float32")  # as in conftest.py
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    files.PAUSES = (0.0, 0.0, 0.0)
    parallel.HEARTBEAT = heartbeat
    recipe = Path(__file__).with_name("standin_recipe.py")
    sys.argv = ["train.py", f"--config={recipe}", f"--compile_cache={cache}", *arguments]
    with standin.installed(), FAULTS[fault]():
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


class Ended(NamedTuple):
    """How hosts end: their exit codes, what they say, and when, in seconds since the first one."""

    codes: list[int | None]
    said: list[str]
    after: list[float]


def two_hosts(
    processes,
    workdir: Path,
    cache: str,
    faults: tuple[str, str],
    *options: str,
    heartbeat: int = HEARTBEAT,
) -> Ended:
    """Trains on two hosts, of which each has its fault; returns how they end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--workdir={workdir}", "--multihost", f"--coordinator={address}", *options]
    logs = [workdir.with_name(f"{workdir.name}.{host}.log") for host in range(2)]
    started = [
        processes(
            target=train,
            args=(
                [*flags, "--num_processes=2", f"--process_id={host}"],
                fault,
                cache,
                str(log),
                heartbeat,
            ),
        )
        for host, (fault, log) in enumerate(zip(faults, logs, strict=True))
    ]
    for process in started:
        process.start()
    waiting, ended, limit = {p.sentinel for p in started}, {}, time.monotonic() + TIMEOUT
    while waiting and time.monotonic() < limit:
        for sentinel in connection.wait(list(waiting), timeout=limit - time.monotonic()):
            ended[sentinel] = time.monotonic()
            waiting.remove(sentinel)
    for process in started:
        process.join(0 if process.sentinel in waiting else TIMEOUT)
    first = min(ended.values(), default=limit)
    after = [ended.get(process.sentinel, limit) - first for process in started]
    codes = [process.exitcode for process in started]
    return Ended(codes, [log.read_text() for log in logs], after)
