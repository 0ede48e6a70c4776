"""What the hosts of a run tell each other, so that none waits for one that has given up.

What a host can find out alone (is the data there, which checkpoint can be read) is done within
`agree`, or told by `exchange`; then all go on or all stop. A host that fails elsewhere says so to
the others, which end within seconds (`watching`). Of one that is killed JAX tells them, after
`parallel.HEARTBEAT` seconds at most. Nothing here needs a device.
"""

import contextlib
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
from jax._src import distributed  # the key-value store of the hosts has no public name

from rvrt_jax.errors import UserError, describe

POLL = 2.0  # seconds between two looks at whether another host has failed
GRACE = 6.0  # seconds in which a host may end by itself after another has failed
LEAVING = 9.0  # seconds for which the first host waits for the others at its end: they need it

LOST = ("Gloo", "NCCL")  # what the errors of a connection to another host name

_FAILED, _LEFT = "rvrt/failed", "rvrt/left"
_meetings = itertools.count()  # all hosts meet in the same order

Result = TypeVar("Result")


class Agreed(UserError):
    """All hosts end at the same place for the same reason; until then they may act together."""


class Followed(UserError):
    """Another host has said why it fails, and this one ends for that."""


def alone() -> bool:
    """Tells whether there is one host."""
    return _state().num_processes == 1


def exchange(value: str) -> list[str]:
    """Returns the values of all hosts, in order; all hosts must call it.

    Raises Followed if one of them fails meanwhile.
    """
    if alone():
        return [value]
    key = f"rvrt/meeting/{next(_meetings)}"
    _client().key_value_set(f"{key}/{_state().process_id}", value)
    return [_wait_for(f"{key}/{host}") for host in range(_state().num_processes)]


def any_of(flag: bool) -> bool:
    """Tells whether `flag` is true on any host; all hosts must call it."""
    return any(exchange("yes" if flag else ""))


def agree(action: Callable[[], Result]) -> Result:
    """Calls `action` on every host; returns its result if it worked on all of them.

    The action must not wait for other hosts. Raises its error where there is one host, and Agreed
    with the reason on all of several.
    """
    if alone():
        return action()
    results, failure = [], None
    try:
        results.append(action())
    except Exception as error:
        failure = error
    raise_together(failure)
    return results[0]


def told_by_first(action: Callable[[], Any]) -> Any:
    """Returns on all hosts what `action` returns on the first one, which must fit into JSON."""
    if alone():
        return action()
    said = agree(lambda: json.dumps(action()) if _state().process_id == 0 else "")
    return json.loads(exchange(said)[0])


def raise_together(failure: Exception | None) -> None:
    """Ends all hosts if this or another one has failed; all hosts must call it.

    Raises `failure` where there is one host, and Agreed with the reason on all of several.
    """
    if failure is not None:
        if alone():
            raise failure
        if not isinstance(failure, UserError | OSError):  # the others print its first line alone
            traceback.print_exception(failure)
    for host, reason in enumerate(exchange("" if failure is None else describe(failure))):
        if reason:
            raise Agreed(f"host {host} cannot go on: {reason}") from failure


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Takes the other hosts down, with the reason, if what is inside raises an exception.

    Ends this process if that happens on another one: it may wait for that one, for ever.
    """
    if alone():
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), daemon=True, name="watch the hosts").start()
    try:
        yield
    except (Agreed, Followed):  # the others know
        raise
    except BaseException as error:
        over.set()
        if any(name in str(error) for name in LOST):
            raise UserError(_why_lost(error)) from error
        announce(error)
        raise
    finally:
        over.set()


def announce(error: BaseException) -> None:
    """Tells the other hosts that this one fails."""
    if not alone():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first host is dead
            _client().key_value_set(f"{_FAILED}/{_state().process_id}", describe(error), True)


def abandon(error: BaseException) -> NoReturn:
    """Ends this process, which other threads keep from that, and takes the other hosts down."""
    announce(error)
    print(f"error: {error}", file=sys.stderr, flush=True)
    leave(1)


def leave(code: int) -> NoReturn:
    """Ends this process at once, the first host after the others, which need it till then.

    JAX's own end would wait for hosts that may be dead.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the terminal may be gone
            stream.flush()
    state, end = _state(), time.monotonic() + LEAVING
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        if state.client is not None:
            state.client.key_value_set(f"{_LEFT}/{state.process_id}", "yes", True)
            while state.process_id == 0 and time.monotonic() < end:
                if len(state.client.key_value_dir_get(_LEFT)) == state.num_processes:
                    break
                time.sleep(0.1)
    os._exit(code)


def _watch(over: threading.Event) -> None:
    """Ends this process if another one has failed, unless `over` comes first."""
    while not over.wait(POLL):
        try:
            failed = _failed()
        except jax.errors.JaxRuntimeError:  # the first host is dead: JAX will end this one
            continue
        if failed and not over.wait(GRACE):
            print(f"error: {failed}", file=sys.stderr, flush=True)
            leave(1)


def _why_lost(error: BaseException) -> str:
    """Returns what another host says why it has gone, or what can be said without it."""
    end = time.monotonic() + GRACE
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        while time.monotonic() < end:
            if failed := _failed():
                return failed
            time.sleep(0.2)
    return (
        f"another host has ended without a word ({describe(error)}). See what its own output or "
        "the cluster's log says of it, and start all hosts again: the run goes on from its latest "
        "checkpoint."
    )


def _failed() -> str | None:
    """Returns which of the other hosts has failed, and why; None if none has."""
    for key, reason in sorted(_client().key_value_dir_get(_FAILED)):
        host = int(key.rsplit("/", 1)[1])
        if host != _state().process_id:
            return f"host {host} has failed: {reason}"
    return None


def _wait_for(key: str) -> str:
    """Returns a value once its host has set it."""
    while True:
        try:
            return _client().blocking_key_value_get(key, round(1000 * POLL))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        failed = _failed()
        if failed:
            raise Followed(failed)


def _client() -> Any:
    return _state().client


def _state() -> Any:
    return distributed.global_state
