"""What a host does without a next batch: it votes where there are others, and leaves where not."""

import contextlib
import errno
import functools
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rvrt_jax.errors import UserError
from rvrt_jax.training import hosts
from rvrt_jax.training.feed import Feed
from rvrt_jax.training.stop import StopRequest

LOGS = SimpleNamespace(waiting=contextlib.nullcontext)


def _feed(error: Exception, stop: str | None = None) -> Feed:
    """Two batches, filled with 1 and 2, and then an error."""

    def batches():
        for value in (1, 2):
            yield {"lq": np.full((jax.local_device_count(), 3), value)}
        raise error

    return Feed(batches(), LOGS, StopRequest(stop))


def _raise(error: Exception) -> None:
    raise error


def _votes(feed: Feed) -> tuple[int, int, int, int]:
    batch = feed.next(7, save=False)
    assert batch is not None
    values = {name: np.unique(x) for name, x in batch.items()}
    return tuple(int(values[name].item()) for name in ("lq", "stop", "save", "drop"))


@pytest.fixture
def several(monkeypatch):
    monkeypatch.setattr(hosts, "alone", lambda: False)


def test_without_a_batch_it_repeats_the_last_one_and_votes_to_drop(several):
    feed = _feed(OSError(errno.ESTALE, os.strerror(errno.ESTALE)))
    assert [_votes(feed) for _ in range(4)] == [(1, 0, 0, 0), (2, 0, 0, 0)] + 2 * [(2, 0, 0, 1)]
    assert isinstance(feed.failure, UserError)
    assert "failed after step 7: OSError: [Errno 116] Stale" in str(feed.failure)


def test_workers_that_a_stop_has_ended_are_no_failure(several):
    feed = _feed(RuntimeError("exit code -15"), "SIGTERM")
    assert [_votes(feed) for _ in range(3)] == [(1, 1, 0, 0), (2, 1, 0, 0), (2, 1, 0, 1)]
    assert feed.failure is None


def test_what_else_fails_waits_for_the_next_vote_and_the_first_reason_counts(several):
    feed = _feed(ArithmeticError())
    assert _votes(feed) == (1, 0, 0, 0)
    for reason in ("first", "second"):
        feed.note(functools.partial(_raise, OSError(reason)))
    assert str(feed.failure) == "first" and _votes(feed) == (1, 0, 0, 1)
    with pytest.raises(hosts.Agreed):  # which all hosts have
        feed.note(functools.partial(_raise, hosts.Agreed()))


def test_a_host_that_is_alone_ends():
    stopped, failed = _feed(RuntimeError("exit code -15"), "SIGTERM"), _feed(RuntimeError("killed"))
    for feed in (stopped, failed):
        assert [_votes(feed)[0] for _ in range(2)] == [1, 2]
    assert stopped.next(7, save=False) is None
    with pytest.raises(UserError, match="failed after step 7: RuntimeError: killed"):
        failed.next(7, save=False)
