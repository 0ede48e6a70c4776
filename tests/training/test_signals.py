"""Signals during a step, a save or a validation, and twice: runs end, and go on to the same bits.

The straight run takes its samples from threads, some of these from worker processes, which get the
signal too, as schedulers have it.
"""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from helpers import command, standin
from helpers.runs import STEPS, ends_like, run, saved_steps

from rvrt_jax.errors import INTERRUPTED, STOPPED
from rvrt_jax.training import checkpoint, validation

CACHE = "JAX_COMPILATION_CACHE_DIR"
TIMEOUT = 600  # generous: other work may share the machine
THREADS, WORKERS = {"root": "nowhere"}, {"root": "2 workers"}

pytestmark = pytest.mark.usefixtures("program_cache")


def _send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def _send_to_all(number: signal.Signals) -> None:
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)
    _send(number)


def _by_signal(**cases):
    """Gives every signal a test of its own; the names of cases are those of the signals."""
    return pytest.mark.parametrize(
        ("number", "case"), [(signal.Signals[name], case) for name, case in cases.items()],
        ids=list(cases),
    )  # fmt: skip


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name
)
def test_a_signal_stops_after_the_step(tmp_path, straight, number, capsys):
    # Some launchers send it to the process and to its group: at once, that is one signal.
    with standin.after_step(4, lambda: _send(number, number)):
        assert not run(tmp_path)
    said = f"stopped by {number.name} after step 5 of 12; the same command goes on from step 5"
    assert said in capsys.readouterr().err
    ends_like(straight, tmp_path)
    assert "resuming at step 5 of 12" in capsys.readouterr().err


@_by_signal(SIGTERM=WORKERS, SIGHUP=WORKERS)
def test_a_signal_to_the_whole_group_stops_well(tmp_path, straight, number, case):
    with standin.after_step(4, lambda: _send_to_all(number)):
        assert not run(tmp_path, data=case)
    assert max(saved_steps(tmp_path)) == 5
    ends_like(straight, tmp_path, data=WORKERS)


@_by_signal(SIGTERM=WORKERS, SIGHUP=THREADS, SIGUSR1=THREADS)
def test_a_signal_while_a_checkpoint_is_written(tmp_path, straight, number, case):
    with standin.at("os.mkdir 6.orbax-checkpoint-tmp", lambda: _send_to_all(number)):
        assert not run(tmp_path, data=case)
    assert max(saved_steps(tmp_path)) in (6, 7)
    ends_like(straight, tmp_path)


@_by_signal(SIGTERM=(WORKERS, 6, 1), SIGHUP=(THREADS, STEPS, 3), SIGUSR1=(THREADS, 6, 1))
def test_a_signal_in_a_validation_loses_neither_step_nor_score(
    tmp_path, straight, number, case, monkeypatch
):
    data, at, call = case  # two clips each time
    before, left = validation.restore_and_score, call

    def stopping(*arguments):
        nonlocal left
        left -= 1
        if left == 0:
            _send_to_all(number)
        return before(*arguments)

    monkeypatch.setattr(standin, "CLIPS", 2)
    monkeypatch.setattr(validation, "restore_and_score", stopping)
    assert not run(tmp_path, data=data)
    assert max(saved_steps(tmp_path)) == at
    monkeypatch.setattr(standin, "CLIPS", 1)
    ends_like(straight, tmp_path)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.is_scored(STEPS)


@_by_signal(SIGTERM=THREADS, SIGHUP=WORKERS, SIGUSR1=THREADS)
def test_a_second_signal_ends_at_once(tmp_path, straight, program_cache, processes, number, case):
    process = processes(
        target=standin.run_and_send_twice,
        args=(str(tmp_path), standin.config(data=case).to_dict(), program_cache[CACHE], number),
    )
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 128 + number
    ends_like(straight, tmp_path)


def test_a_second_interrupt_is_raised(tmp_path, straight):
    def twice() -> None:
        _send(signal.SIGINT)
        time.sleep(0.8)
        _send(signal.SIGINT)

    with standin.after_step(4, twice), pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    ends_like(straight, tmp_path)


def _train_py(processes, folder: Path, cache: str, fault: str) -> tuple[int | None, str]:
    """Runs train.py in folder/run; returns its exit code, None if it hung, and what it said."""
    log = folder / "log"
    process = processes(
        target=command.train, args=([f"--workdir={folder / 'run'}"], fault, cache, str(log))
    )
    process.start()
    process.join(TIMEOUT)
    code = process.exitcode
    process.kill()  # if it is still there
    process.join()
    return code, log.read_text()


def test_train_py_ends_with_its_own_code_when_stopped(tmp_path, straight, program_cache, processes):
    code, said = _train_py(processes, tmp_path, program_cache[CACHE], "SIGTERM")
    assert code == STOPPED == 75
    assert "stopped by SIGTERM after step 1 of 12; the same command goes on" in said
    ends_like(straight, tmp_path / "run")


def test_a_second_interrupt_ends_train_py_where_it_waits_in_c(
    tmp_path, straight, program_cache, processes
):
    code, said = _train_py(processes, tmp_path, program_cache[CACHE], "interrupt")
    assert code == INTERRUPTED == 130
    assert "ended at once by SIGINT." in said
    ends_like(straight, tmp_path / "run")
