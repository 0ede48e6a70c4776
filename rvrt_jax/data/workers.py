"""Worker processes that end with their parent, and leave no shared memory behind.

Workers hand their batches over in blocks in /dev/shm (on Linux), which outlive processes that are
killed. So blocks carry the name of their run, and a run holds a lock of that name as long as it
lives: what belongs to no living run is removed when the next one starts.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

from absl import flags

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "rvrt-"  # rvrt-TOKEN.lock and rvrt-TOKEN-BLOCK
PATIENCE = 1.0  # seconds between two looks at whether the parent still lives


def prepare() -> functools.partial:
    """Readies this process for workers; returns what each of them has to call first.

    Removes the blocks of dead runs. The result takes the worker's number and their count.
    """
    if not flags.FLAGS.is_parsed():  # grain reads flags, which a notebook has not parsed
        flags.FLAGS.mark_as_parsed()
    main = sys.modules["__main__"]
    if not Path(getattr(main, "__file__", None) or "/").exists():
        del main.__file__  # "<stdin>", which workers would try to run
    return functools.partial(start, _token(), os.getpid())


def start(token: str, parent: int, index: int, count: int) -> None:
    """Makes this process a worker: signals are its parent's business, whose end is its own."""
    del index, count
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):  # they may go to the whole group
        signal.signal(number, signal.SIG_IGN)

    def block_name() -> str:
        return f"/{PREFIX}{token}-{secrets.token_hex(6)}"

    shared_memory._make_filename = block_name  # type: ignore[attr-defined]  # it has no option

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the parent").start()


def sweep(folder: Path = SHARED_MEMORY) -> list[str]:
    """Removes what dead runs have left in `folder`; returns the names of the blocks."""
    removed = []
    living: dict[str, bool] = {}
    for path in sorted(folder.glob(f"{PREFIX}*-*")):
        token = path.name.removeprefix(PREFIX).split("-")[0]
        if token not in living:
            with _held_here(folder / f"{PREFIX}{token}.lock") as dead:
                living[token] = not dead
        if not living[token] and _remove(path):
            removed.append(path.name)
    for path in folder.glob(f"{PREFIX}*.lock"):
        with _held_here(path) as dead:  # while it is removed, lest its run takes it in between
            if dead:
                _remove(path)
    return removed


def _remove(path: Path) -> bool:
    """Removes a file; returns whether it could: another user's is none of our business."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return False
    return True


@functools.cache
def _token() -> str:
    """Returns the name of this process's blocks, under a lock that ends with it."""
    token = secrets.token_hex(4)
    if SHARED_MEMORY.is_dir():
        sweep()
        path = SHARED_MEMORY / f"{PREFIX}{token}.lock"
        while not _taken(path):
            pass
        atexit.register(path.unlink, missing_ok=True)
    return token


def _taken(path: Path) -> bool:
    """Makes a lock and takes it; False if another run's sweep has removed it in between."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)  # stays open; not inherited
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return True
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return False


@contextlib.contextmanager
def _held_here(path: Path) -> Iterator[bool]:
    """Takes the lock of a dead run, for a while; yields False if a living process holds it.

    True, too, if there is no lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            fcntl.flock(stack.enter_context(path.open("r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead = True
        except FileNotFoundError:
            dead = True
        except (BlockingIOError, PermissionError):  # another user's is none of our business
            dead = False
        yield dead
