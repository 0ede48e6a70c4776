"""Runs on two hosts: each fault of one of them ends both, and the run goes on to the same bits.

Hosts are processes that run train.py, as a user starts it.
"""

import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import command
from helpers.runs import STEPS, final, log_lines, run

from rvrt_jax import parallel
from rvrt_jax.errors import STOPPED

CACHE = "JAX_COMPILATION_CACHE_DIR"
WORKERS = "--config.data.root=1 workers"
MINUTE = 60 + 30  # seconds; half of one more, for other work may share the machine
FATAL = "Terminating process because the JAX distributed service detected fatal errors"

pytestmark = pytest.mark.usefixtures("program_cache")


@pytest.fixture(scope="module")
def on_two_hosts(program_cache, processes):
    """Trains in a folder with the faults of host 0 and host 1; returns exit codes and outputs.

    Whatever ends one of them, the other one follows within a minute.
    """

    def train(workdir: Path, first: str, second: str, *options: str, **how):
        cache, faults = program_cache[CACHE], (first, second)
        ended = command.two_hosts(processes, workdir, cache, faults, *options, **how)
        if any(code not in (0, STOPPED) for code in ended.codes):
            assert max(ended.after) < MINUTE, ended
        return ended.codes, ended.said

    return train


@pytest.fixture(scope="module")
def apart(tmp_path_factory, on_two_hosts) -> Path:
    """The folder of a run on two hosts that was never stopped."""
    workdir = tmp_path_factory.mktemp("apart") / "run"
    assert on_two_hosts(workdir, "", "")[0] == [0, 0]
    return workdir


def _steps(workdir: Path) -> list[int]:
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def _assert_same_run(workdir: Path, straight: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, final(workdir), final(straight))
    ours, theirs = (
        [(line["step"], line["loss"]) for line in log_lines(each) if "loss" in line]
        for each in (workdir, straight)
    )
    assert ours == theirs


def test_a_stopped_run_goes_on_on_two_hosts_and_on_one(tmp_path, straight, apart, on_two_hosts):
    hosts, one = tmp_path / "hosts", tmp_path / "one"
    codes, (said, _) = on_two_hosts(hosts, "", "SIGTERM")  # only one of them is asked to stop
    assert codes == [STOPPED, STOPPED]
    stopped = _steps(hosts)[-1]
    assert f"stopped by another host after step {stopped} of {STEPS}" in said
    shutil.copytree(hosts, one)
    assert on_two_hosts(hosts, "", "")[0] == [0, 0]
    _assert_same_run(hosts, apart)

    run(one)  # the same global batch on another number of hosts
    expected = final(straight)
    for workdir in (hosts, one):
        result = final(workdir)
        for name in ("params", "ema", "opt_state"):
            # Sums in another order; the batch's order differs too.
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
                getattr(result, name),
                getattr(expected, name),
            )
        lines = log_lines(workdir)
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
        scores, true = (
            [line["validation"]["psnr_rgb"] for line in each if "validation" in line]
            for each in (lines, log_lines(straight))
        )
        assert scores == pytest.approx(true, abs=0.01)


def test_what_fails_on_one_host_ends_both_and_costs_no_step(tmp_path, apart, on_two_hosts):
    """One run meets all of it, each time where it has got to."""
    workdir = tmp_path / "run"

    # A network disk has gone: the step that host 1 has no samples for is not taken.
    codes, said = on_two_hosts(workdir, "", "no input")
    assert codes == [1, 1] and _steps(workdir) == [3]
    reason = "the input has failed after step 3: OSError: [Errno 116] Stale file handle"
    for text in said:
        assert f"error: host 1 cannot go on: {reason}" in text
    assert "an error ends the run; step 3 is saved." in said[0]

    # A checkpoint that one host cannot read stays; nobody trains on.
    codes, said = on_two_hosts(workdir, "", "cannot read")
    assert codes == [1, 1] and _steps(workdir) == [3]
    for text in said:
        assert f"error: host 1 cannot go on: checkpoint {workdir}/checkpoints/3 cannot be" in text
        assert "[Errno 5] Input/output error" in text
    assert not (workdir / "checkpoints-damaged").exists()

    # Host 1 has lost a worker; what was ready is used.
    codes, said = on_two_hosts(workdir, "", "kill worker", WORKERS)
    assert codes == [1, 1]
    saved = _steps(workdir)[-1]
    assert 3 < saved < STEPS and f"an error ends the run; step {saved} is saved." in said[0]
    for text in said:
        assert f"error: host 1 cannot go on: the input has failed after step {saved}" in text

    # A scheduler ends all processes of both hosts, workers too.
    codes, said = on_two_hosts(workdir, "group", "group", WORKERS)
    assert codes == [STOPPED, STOPPED]
    stopped = _steps(workdir)[-1]
    assert saved < stopped < STEPS and f"stopped by SIGTERM after step {stopped}" in said[0]

    assert on_two_hosts(workdir, "", "")[0] == [0, 0]
    _assert_same_run(workdir, apart)


def test_what_fails_beside_the_steps_of_one_host_costs_none(tmp_path, on_two_hosts):
    workdir = tmp_path / "run"
    rare = ["--config.save_every=100", "--config.eval_every=100"]
    codes, said = on_two_hosts(workdir, "no trace", "", "--profile=1", *rare)
    assert codes == [1, 1] and _steps(workdir) == [4]
    for text in said:
        assert "error: host 0 cannot go on: OSError: the trace cannot be written: " in text
    # The program for the steps from the thaw of SpyNet on.
    codes, said = on_two_hosts(workdir, "", "no program", *rare)
    assert codes == [1, 1] and _steps(workdir) == [4, 5]
    for text in said:
        assert "error: host 1 cannot go on: OSError: [Errno 12] Cannot allocate memory" in text
    assert "an error ends the run; step 5 is saved." in said[0]


def test_a_full_disk_on_one_host_ends_both(tmp_path, apart, on_two_hosts):
    workdir = tmp_path / "run"
    codes, said = on_two_hosts(workdir, "", "full")
    assert codes == [1, 1]
    assert "error: a checkpoint could not be written to" in said[1]
    assert "error: host 1 has failed: a checkpoint could not be written" in said[0]
    for text in said:
        assert "the disk is full" in text
    assert on_two_hosts(workdir, "", "")[0] == [0, 0]
    _assert_same_run(workdir, apart)


def test_one_stale_handle_on_one_host_costs_nothing(tmp_path, apart, on_two_hosts):
    """Of the checkpoint that both resume from: neither goes back to an older one alone."""
    workdir = tmp_path / "run"
    shutil.copytree(apart, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))  # as if it had got to the one before
    before = _steps(workdir)[-1]
    codes, said = on_two_hosts(workdir, "", "stale once")
    assert codes == [0, 0]
    assert command.STALE in said[1] and f"resuming at step {before} of" in said[0]
    assert not (workdir / "checkpoints-damaged").exists()
    _assert_same_run(workdir, apart)


def _faults(victim: int, fault: str) -> tuple[str, str]:
    return (fault, "") if victim == 0 else ("", fault)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_host_takes_the_other_one_down(tmp_path, apart, on_two_hosts, victim):
    workdir = tmp_path / "run"
    # Where no connection of devices is lost, nothing but silence tells: not of a thousand seconds.
    codes, said = on_two_hosts(workdir, *_faults(victim, "kill"), WORKERS, heartbeat=50)
    assert codes[victim] == -signal.SIGKILL
    other = 1 - victim
    if codes[other] == -signal.SIGABRT:  # JAX may be first to miss it
        assert FATAL in said[other]
    else:
        assert codes[other] == 1
        assert "error: another host has ended without a word (" in said[other]
    assert on_two_hosts(workdir, "", "")[0] == [0, 0]
    _assert_same_run(workdir, apart)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_waits_for_a_killed_one_ends_by_the_heartbeat(tmp_path, on_two_hosts, victim):
    """No connection of devices is there yet whose loss would be an error."""
    faults = _faults(victim, "kill in meeting")
    codes, said = on_two_hosts(tmp_path / "run", *faults, heartbeat=parallel.HEARTBEAT)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == -signal.SIGABRT
    assert FATAL in said[1 - victim]
