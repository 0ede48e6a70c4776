"""Signals that ask a run to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class StopRequest:
    """Holds the name of the signal that asked the run to stop, if one did."""

    signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a request to stop; a second Ctrl-C interrupts at once."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return

    def handle(number: int, frame: Any) -> None:
        if stop and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        stop.signal = signal.Signals(number).name

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
