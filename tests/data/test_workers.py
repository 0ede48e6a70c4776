"""Worker processes end with their parent, and what dead runs left in shared memory is removed."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rvrt_jax.data import workers

ROOT = Path(__file__).parents[2]


def _wait(condition, seconds=60):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_only_what_no_living_run_owns_is_swept(tmp_path):
    for name in ("rvrt-dead-0a", "rvrt-dead.lock", "rvrt-live-0a", "rvrt-none-1", "psm_1", "other"):
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / "rvrt-live.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert workers.sweep(tmp_path) == ["rvrt-dead-0a", "rvrt-none-1"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"rvrt-live-0a", "rvrt-live.lock", "psm_1", "other"}


@pytest.mark.parametrize("group", [False, True], ids=["the parent", "all of them"])
def test_workers_end_with_a_killed_parent_and_the_next_run_sweeps(group):
    """The parent makes batches in two workers, tells their pids, and waits to be killed."""
    command = [sys.executable, "-m", "tests.helpers.feed"]
    parent = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    with parent.stdout as output:
        token, *pids = output.readline().split()
    assert len(pids) == 2 and all(_alive(int(pid)) for pid in pids)
    blocks = lambda: list(workers.SHARED_MEMORY.glob(f"rvrt-{token}-*"))  # noqa: E731
    _wait(blocks)
    assert not set(workers.sweep()) & {path.name for path in blocks()}  # it lives
    if group:
        os.killpg(parent.pid, signal.SIGKILL)
    else:
        parent.kill()
    parent.wait()
    _wait(lambda: not any(_alive(int(pid)) for pid in pids))
    workers.sweep()
    assert not blocks() and not (workers.SHARED_MEMORY / f"rvrt-{token}.lock").exists()


def test_what_others_may_not_remove_stops_nobody(tmp_path, monkeypatch):
    """As in /dev/shm, where only the owner of a file may remove it."""
    for name in ("rvrt-aa-1", "rvrt-bb-1", "rvrt-cc-1", "rvrt-bb.lock"):
        (tmp_path / name).touch()
    unlink = Path.unlink

    def sticky(path, missing_ok=False):
        if path.name.startswith("rvrt-bb"):
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", sticky)
    assert workers.sweep(tmp_path) == ["rvrt-aa-1", "rvrt-cc-1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rvrt-bb-1", "rvrt-bb.lock"]


def _is_held(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_lock_that_a_sweep_removes_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    flock, swept = fcntl.flock, []

    def late(file, operation):
        if operation == fcntl.LOCK_EX and len(swept) < 2:
            swept.append(next(tmp_path.glob("*.lock")).name)
            workers.sweep(tmp_path)  # another run's
            assert not list(tmp_path.iterdir())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    token = workers._token.__wrapped__()
    lock = tmp_path / f"rvrt-{token}.lock"
    assert swept == 2 * [lock.name] and _is_held(lock)
    (tmp_path / f"rvrt-{token}-1").touch()
    assert workers.sweep(tmp_path) == [] and lock.exists()


def test_a_sweep_holds_the_lock_that_it_removes(tmp_path, monkeypatch):
    (tmp_path / "rvrt-aa.lock").touch()
    unlink, held = Path.unlink, []

    def noting(path, missing_ok=False):
        held.append(_is_held(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noting)
    workers.sweep(tmp_path)
    assert held == [True] and not list(tmp_path.iterdir())
