"""Runs that are killed, or move to other hosts, end as one that was never stopped."""

import multiprocessing
import shutil
import signal
import socket
from pathlib import Path

import jax
import numpy as np
import pytest
import standin
from test_training import _final, _lines, _run

STEPS = standin.config().steps
TIMEOUT = 600  # generous: other work may share the machine


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The runs below compile the same few programs over and over."""
    folder = tmp_path_factory.mktemp("cache")
    with standin.cached_programs(folder):
        yield str(folder)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("straight")
    _run(workdir)
    return workdir


@pytest.fixture(scope="module")
def processes():
    """Starts processes from a server that has imported everything once, but touched no device."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        folders = (Path(__file__).parent, Path(__file__).parents[1])
        patch.setenv("PYTHONPATH", ":".join(map(str, folders)))  # the server does not ask pytest
        context.set_forkserver_preload(["standin"])
        yield context.Process


def _exit_codes(started) -> list[int | None]:
    for process in started:
        process.start()
    for process in started:
        process.join(TIMEOUT)
    return [process.exitcode for process in started]


KILL_POINTS = (
    "step 1",  # before the first checkpoint
    "step 2",
    "os.mkdir 3.orbax-checkpoint-tmp",  # a checkpoint begins
    "step 4",
    "step 5",
    "open 6.orbax-checkpoint-tmp/rest.*/_METADATA",  # half of it is written
    "step 7",
    "step 8",
    "os.rename 9.orbax-checkpoint-tmp/params.*",
    "step 10",
    "step 11",
    "os.rename 12.orbax-checkpoint-tmp",  # all but its name, after the last step
)


@pytest.mark.parametrize("where", KILL_POINTS)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, straight, cache, processes, where):
    values = standin.config().to_dict()
    process = processes(target=standin.run_and_die, args=(str(tmp_path), values, cache, where))
    assert _exit_codes([process]) == [-signal.SIGKILL]
    half_written = [p.name for p in (tmp_path / "checkpoints").glob("*.orbax-checkpoint-tmp")]
    if "step" not in where:
        assert half_written == [where.split()[1].split("/")[0]] or "mkdir" in where
    _run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, _final(tmp_path), _final(straight))
    steps = [line["step"] for line in _lines(tmp_path) if "loss" in line]
    assert steps == list(range(1, STEPS + 1))
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


def _two_hosts(processes, workdir: Path, *, stop_after: int = 0) -> list[int | None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    values = standin.config().to_dict()
    # Only one of the hosts is asked to stop.
    arguments = [(i, address, str(workdir), values, i and stop_after) for i in range(2)]
    return _exit_codes([processes(target=standin.run_on_host, args=a) for a in arguments])


def test_two_hosts_train_stop_and_resume_as_one_does(tmp_path, straight, processes):
    hosts, one = tmp_path / "hosts", tmp_path / "one"
    assert _two_hosts(processes, hosts, stop_after=4) == [0, 0]
    (stopped,) = (int(p.name) for p in (hosts / "checkpoints").iterdir() if p.name != "3")
    assert 4 < stopped < STEPS
    shutil.copytree(hosts, one)

    assert _two_hosts(processes, hosts) == [0, 0]
    _run(one)  # the same global batch on another number of hosts
    expected = _final(straight)
    for workdir in (hosts, one):
        result = _final(workdir)
        for name in ("params", "ema", "opt_state"):
            # Sums in another order; the batch's order differs too.
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
                getattr(result, name),
                getattr(expected, name),
            )
        lines = _lines(workdir)
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
        scores, true = (
            [line["validation"]["psnr_rgb"] for line in each if "validation" in line]
            for each in (lines, _lines(straight))
        )
        assert scores == pytest.approx(true, abs=0.01)
