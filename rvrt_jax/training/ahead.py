"""Compiles the step for the time after a group thaws, while the steps before it run.

Compiling takes minutes, and processors are idle while accelerators work. Without this, these would
wait for it in the middle of a run.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Step = Callable[..., Any]  # as `parallel.data_parallel` returns it


class Programs:
    """The steps of a run by the names of the groups that are frozen, as `step.programs` makes them.

    `prepare` compiles one in a thread of its own; a call waits for that, and raises what it raised.
    The thread ends with its compilation: a process that ends before waits for it.
    """

    def __init__(self, programs: Callable[[frozenset[str]], Step]) -> None:
        self._programs = programs
        self._ahead: dict[frozenset[str], Future[None]] = {}

    def __call__(self, frozen: frozenset[str]) -> Step:
        """Returns the step; unless it was prepared, its first call compiles it."""
        if frozen in self._ahead:
            self._ahead[frozen].result()
        return self._programs(frozen)

    def prepare(self, frozen: frozenset[str], *arguments: Any) -> None:
        """Starts to compile the step for arguments like these, unless that was started before."""
        if frozen in self._ahead:
            return
        kept = [arguments]  # until it is lowered, not until it is compiled: the state is large
        pool = ThreadPoolExecutor(1, thread_name_prefix="compile_ahead")
        self._ahead[frozen] = pool.submit(_compile, self._programs(frozen), kept)
        pool.shutdown(wait=False)


def _compile(step: Any, kept: list[tuple]) -> None:
    """Compiles a step for `kept.pop()`; JAX finds the program when the step is called."""
    lowered = step.lower(*kept.pop())
    lowered.compile()
