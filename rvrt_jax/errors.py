"""The one exception that stands for a mistake of the user, and how programs report it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

INTERRUPTED = 130  # the exit code of programs that are stopped, as shells have it
STOPPED = 75  # of a training run that goes on when it is started again (sysexits: EX_TEMPFAIL)


class UserError(ValueError):
    """A mistake that the user can correct: the message says what was wrong and the way out.

    Command-line entry points print it without a traceback and exit with code 1.
    """


def describe(error: BaseException) -> str:
    """Returns the first line of an error, with its type unless it is meant for the user."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def exit_code(action: Callable[[], object]) -> int:
    """Runs a program's `action`; returns its exit code.

    0, or 1 after one line about what the user can correct, or 130 when it was stopped by Ctrl-C.
    """
    try:
        action()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (RuntimeError, AssertionError):  # what JAX raises where a platform is not installed
        if (reason := _no_device()) is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _no_device() -> str | None:
    """Returns why JAX has no device, and the way out; None if it has one, or was not used."""
    if (jax := sys.modules.get("jax")) is None:
        return None
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = describe(error).removesuffix(": ")
        if not (asked := os.environ.get("JAX_PLATFORMS")):
            return f"JAX finds no device: {reason}."
        return (
            f"JAX finds no device for JAX_PLATFORMS={asked}: {reason}. If the name is meant, "
            "install what it needs, pip install 'rvrt_jax[cuda]' or 'rvrt_jax[tpu]'; else unset "
            "JAX_PLATFORMS."
        )
    return None


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM stop the program as Ctrl-C does, so that it cleans up."""

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
