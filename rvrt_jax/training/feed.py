"""The batches of a host, and what it tells the others with each."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from rvrt_jax import parallel
from rvrt_jax.errors import UserError, describe
from rvrt_jax.training import hosts
from rvrt_jax.training.logs import Logs
from rvrt_jax.training.stop import StopRequest

Batch = dict[str, np.ndarray]


@dataclasses.dataclass
class Feed:
    """Hands out the batches of this host.

    A host of several that has no next batch must not leave alone, for the others would wait for it:
    it repeats its last one, in a step that all hosts drop (`parallel.VOTES`).
    last: the last batch. failure: what keeps this host from going on. starved: a stop signal has
    ended its workers.
    """

    data: Iterator[Batch]
    logs: Logs
    stop: StopRequest
    last: Batch = dataclasses.field(default_factory=dict)
    failure: Exception | None = None
    starved: bool = False

    def has_first(self, done: int) -> bool:
        """Reads the first batch; returns whether all hosts have one: else there is none to repeat.

        False: a stop signal has ended workers. Raises UserError if reading fails.
        """
        first = hosts.agree(lambda: self._read(done))
        if first is not None:
            self.data = itertools.chain([first], self.data)
        return not hosts.any_of(first is None)

    def next(self, done: int, *, save: bool) -> Batch | None:
        """Returns a batch for this host's devices, with its votes; `save` is one of them.

        A host that is alone gets None if a stop signal has ended its workers, and an exception if
        reading fails.
        """
        batch = None
        if self.failure is None and not self.starved:
            self.note(lambda: self._take(done))
            batch = None if self.failure or self.starved else self.last
        if batch is None and hosts.alone():
            return None
        return parallel.split(self.last, stop=bool(self.stop), save=save, drop=batch is None)

    def note(self, action: Callable[[], object]) -> None:
        """Does what concerns this host alone; of several, it keeps the error for the next vote."""
        try:
            action()
        except (hosts.Agreed, jax.errors.JaxRuntimeError):  # all hosts have these
            raise
        except Exception as error:
            if hosts.alone():
                raise
            self.failure = self.failure or error

    def _take(self, done: int) -> None:
        batch = self._read(done)
        if batch is None:
            self.starved = True
        else:
            self.last = batch

    def _read(self, done: int) -> Batch | None:
        """Reads a batch; returns None if a stop signal has ended the workers too."""
        try:
            with self.logs.waiting():
                return next(self.data)
        except (OSError, RuntimeError) as error:
            if self.stop and isinstance(error, RuntimeError):  # the signal was for a worker, too
                return None
            raise explained(error, done) from error


def explained(error: OSError | RuntimeError, done: int = 0) -> UserError:
    """Returns what to say when the input fails after so many steps: by its disk, or by a worker."""
    failed = f"the input has failed after step {done}: {describe(error)}"
    if isinstance(error, OSError):
        way_out = ". Look after the disk that the data is on; the same command goes on."
    else:
        way_out = (
            " If a worker was killed, the memory may have run out: lower config.data.num_workers. "
            "The same command goes on."
        )
    return UserError(failed + way_out)
