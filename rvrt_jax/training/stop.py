"""Signals that ask a run to stop."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

# Of a scheduler or a container, of a terminal, of a lost connection, and Slurm's warning that time
# runs out (--signal=USR1@300).
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
ONCE = 0.5  # seconds in which signals count as one: launchers pass on what the group gets as well


@dataclass
class StopRequest:
    """Holds the name of the signal that asked the run to stop, if one did."""

    signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


class _Counter:
    """Tells the second signal from the first, for one of the two that hear them."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._first: float | None = None

    def is_second(self, number: int) -> bool:
        """Takes a signal; returns whether one came before, by more than `ONCE`."""
        now = time.monotonic()
        if self._stop.signal is None:
            self._stop.signal = signal.Signals(number).name
        if self._first is None:
            self._first = now
        return now - self._first > ONCE


@contextlib.contextmanager
def stop_signals(*, own_process: bool = False) -> Iterator[StopRequest]:
    """Turns signals into a request to stop; a second one ends the process at once.

    At once means without waiting for anything, with exit code 128 + the signal's number. Only a
    second Ctrl-C is raised as KeyboardInterrupt, which leaves a notebook alive, but waits for what
    the main thread is in; with own_process, for commands, it ends the process as the others do.
    A signal that is ignored, as nohup has it, stays ignored.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return
    heard = _Counter(stop)

    def handle(number: int, frame: Any) -> None:
        if heard.is_second(number) and number == signal.SIGINT and not own_process:
            signal.default_int_handler(number, frame)

    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    ending = set(SIGNALS) if own_process else set(SIGNALS) - {signal.SIGINT}
    with _ending_at_once(_Counter(stop), ending):
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _ending_at_once(heard: _Counter, ending: Collection[int]) -> Iterator[None]:
    """Hears signals in a thread, for the main one may wait for a device for long.

    ending: those of which a second one ends the process.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def listen() -> None:
        while numbers := receiver.recv(64):
            for number in numbers:
                if number in SIGNALS and heard.is_second(number) and number in ending:
                    with contextlib.suppress(OSError):  # the terminal may be gone
                        name = signal.Signals(number).name
                        print(f"ended at once by {name}.", file=sys.stderr, flush=True)
                    os._exit(128 + number)

    thread = threading.Thread(target=listen, daemon=True, name="listen to signals")
    thread.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        thread.join()
        receiver.close()
