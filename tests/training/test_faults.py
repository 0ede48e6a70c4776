"""Signals, lost workers, disks that fail: each run ends as it should, and goes on to the same bits.

The straight run takes its samples from threads, most of these from worker processes.
"""

import errno
import fcntl
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import standin
from helpers.runs import STEPS, final, log_lines, run

from rvrt_jax.errors import UserError
from rvrt_jax.training import checkpoint, reading, run_folder, state, validation
from rvrt_jax.training import loop as training

ROOT = Path(__file__).parents[2]
CACHE = "JAX_COMPILATION_CACHE_DIR"
TIMEOUT = 600  # generous: other work may share the machine
WORKERS = {"root": "2 workers"}
READING = "open 6/rest/_METADATA"

# The threads of orbax raise the error too, beside the one that is reported.
THREADS_RAISE_TOO = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)

pytestmark = pytest.mark.usefixtures("program_cache")


def _ends_like(straight: Path, workdir: Path, **changes) -> None:
    """Finishes a run, which must have the bits and the log of the straight one."""
    assert run(workdir, **changes)
    jax.tree.map(np.testing.assert_array_equal, final(workdir), final(straight))
    ours, theirs = (
        [
            (line["step"], line.get("loss"), line.get("validation"))
            for line in log_lines(folder)
            if "loss" in line or "validation" in line
        ]
        for folder in (workdir, straight)
    )
    assert ours == theirs
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def _steps(workdir: Path) -> set[int]:
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return {int(name) for name in names if name.isdigit()}


def _send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name
)
def test_a_signal_stops_after_the_step(tmp_path, straight, number, capsys):
    # Some launchers send it to the process and to its group: at once, that is one signal.
    with standin.after_step(4, lambda: _send(number, number)):
        assert not run(tmp_path)
    said = f"stopped by {number.name} after step 5 of 12; the same command goes on from step 5"
    assert said in capsys.readouterr().err
    _ends_like(straight, tmp_path)
    assert "resuming at step 5 of 12" in capsys.readouterr().err


def test_a_signal_while_a_checkpoint_is_written(tmp_path, straight):
    with standin.at("os.mkdir 6.orbax-checkpoint-tmp", lambda: _send(signal.SIGTERM)):
        assert not run(tmp_path)
    assert max(_steps(tmp_path)) in (6, 7)
    _ends_like(straight, tmp_path)


@pytest.mark.parametrize(("at", "call"), [(6, 1), (STEPS, 3)])  # two clips each time
def test_a_signal_in_a_validation_loses_neither_step_nor_score(
    tmp_path, straight, at, call, monkeypatch
):
    before, left = validation.restore_and_score, call

    def stopping(*arguments):
        nonlocal left
        left -= 1
        if left == 0:
            _send(signal.SIGUSR1)
        return before(*arguments)

    monkeypatch.setattr(standin, "CLIPS", 2)
    monkeypatch.setattr(validation, "restore_and_score", stopping)
    assert not run(tmp_path)
    assert max(_steps(tmp_path)) == at
    monkeypatch.setattr(standin, "CLIPS", 1)
    _ends_like(straight, tmp_path)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.is_scored(STEPS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_second_signal_ends_at_once(tmp_path, straight, program_cache, processes, number):
    process = processes(
        target=standin.run_and_send_twice,
        args=(str(tmp_path), standin.config().to_dict(), program_cache[CACHE], number),
    )
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 128 + number
    _ends_like(straight, tmp_path)


def test_a_second_interrupt_is_raised(tmp_path, straight):
    def twice() -> None:
        _send(signal.SIGINT)
        time.sleep(0.8)
        _send(signal.SIGINT)

    with standin.after_step(4, twice), pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    _ends_like(straight, tmp_path)


def test_a_killed_worker_ends_the_run_with_a_checkpoint(tmp_path, straight, capsys):
    def kill_one() -> None:
        child, *_ = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)

    with standin.after_step(1, kill_one), pytest.raises(UserError) as raised:
        run(tmp_path, data=WORKERS)
    assert "the input has failed after step" in str(raised.value)
    assert "exit code -9" in str(raised.value) and "num_workers" in str(raised.value)
    saved = max(_steps(tmp_path))
    assert 2 <= saved < STEPS  # what workers had ready was used
    assert f"an error ends the run; step {saved} is saved." in capsys.readouterr().err
    _ends_like(straight, tmp_path, data={"root": "1 workers"})


def test_a_signal_to_the_whole_group_stops_well(tmp_path, straight):
    def to_all() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGTERM)
        _send(signal.SIGTERM)

    with standin.after_step(4, to_all):
        assert not run(tmp_path, data=WORKERS)
    assert max(_steps(tmp_path)) == 5
    _ends_like(straight, tmp_path, data=WORKERS)


def test_a_killed_run_with_workers_goes_on(tmp_path, straight, program_cache, processes):
    values = standin.config(data=WORKERS).to_dict()
    process = processes(
        target=standin.run_and_die, args=(str(tmp_path), values, program_cache[CACHE], "step 8")
    )
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL
    _ends_like(straight, tmp_path, data={"root": "1 workers"})


def _break_samples(patch) -> None:
    """Lets the samples of step 6 fail."""
    whole = standin.Noise.map

    def broken(self, index):
        if 20 <= index < 99:
            raise ArithmeticError("something else")
        return whole(self, index)

    patch.setattr(standin.Noise, "map", broken)


def test_an_exception_leaves_a_checkpoint(tmp_path, straight, capsys, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ArithmeticError, match="something else"):
        _break_samples(patch)
        run(tmp_path)
    assert _steps(tmp_path) == {3, 5}
    assert "an error ends the run; step 5 is saved." in capsys.readouterr().err
    _ends_like(straight, tmp_path)


@THREADS_RAISE_TOO
def test_a_full_disk_does_not_hide_the_first_exception(tmp_path, straight, capsys, monkeypatch):
    monkeypatch.setattr(training, "RESCUE_PAUSES", (0.1,))
    full = standin.failing("open 5.orbax-checkpoint-tmp/*", errno.ENOSPC, times=999)
    with monkeypatch.context() as patch, full, pytest.raises(ArithmeticError, match="something"):
        _break_samples(patch)
        run(tmp_path)
    said = capsys.readouterr().err
    assert "the last steps could not be saved (a checkpoint could not be written to" in said
    assert "the disk is full" in said
    assert 5 not in _steps(tmp_path)
    _ends_like(straight, tmp_path)


@THREADS_RAISE_TOO
def test_a_disk_full_for_a_moment_costs_no_step(tmp_path, straight, capsys):
    full = standin.failing("open 6.orbax-checkpoint-tmp/*", errno.ENOSPC)
    with full, pytest.raises(UserError, match=r"the disk is full.*goes on from step 3"):
        run(tmp_path)
    assert "an error ends the run; step 6 is saved." in capsys.readouterr().err
    _ends_like(straight, tmp_path)


def test_a_read_error_is_tried_again(tmp_path, straight, monkeypatch):
    with standin.signalled(signal.SIGTERM, after=5):
        run(tmp_path)
    assert max(_steps(tmp_path)) == 6
    monkeypatch.setattr(reading, "PAUSES", (0, 0, 0))
    with standin.failing(READING, errno.ESTALE, times=3):
        _ends_like(straight, tmp_path)
    assert not (tmp_path / "checkpoints-damaged").exists()


def test_a_lasting_read_error_stops_the_run_and_changes_nothing(tmp_path, straight, monkeypatch):
    with standin.signalled(signal.SIGTERM, after=5):
        run(tmp_path)
    before = _steps(tmp_path)
    monkeypatch.setattr(reading, "PAUSES", (0, 0, 0))
    lasting = standin.failing(READING, errno.EIO, times=99)
    with lasting, pytest.raises(UserError, match=r"6 cannot be read .*Input/output.*tried 4 times"):
        run(tmp_path)
    assert _steps(tmp_path) == before and not (tmp_path / "checkpoints-damaged").exists()
    _ends_like(straight, tmp_path)


@pytest.mark.parametrize(("minutes", "kept"), [(1e-9, {2, 3}), (0.0, {3})])
def test_checkpoints_by_time(tmp_path, minutes, kept):
    run(tmp_path, steps=3, save_every=100, eval_every=100, save_every_minutes=minutes)
    assert _steps(tmp_path) == kept


def test_the_second_run_in_a_folder_is_refused(tmp_path):
    with (tmp_path / run_folder.LOCK).open("w") as file:
        file.write("process 7 on elsewhere")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"in use by another run \(process 7 on elsewhere\)"):
            run(tmp_path, steps=1)
        assert [path.name for path in tmp_path.iterdir()] == [run_folder.LOCK]
    assert run(tmp_path, steps=1)  # the lock of a run that has ended keeps nobody out


def test_the_config_is_written_once_the_start_has_succeeded(tmp_path, monkeypatch):
    def fail(*arguments):
        raise UserError("no weights")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="no weights"):
        patch.setattr(state, "fresh", fail)
        run(tmp_path)
    assert not (tmp_path / "config.json").exists()
    run(tmp_path, steps=2)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="no weights"):
        patch.setattr(standin.Net, "__call__", fail)
        run(tmp_path, steps=3)
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 2


def test_a_lost_terminal_does_not_end_the_run(tmp_path, straight, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    _ends_like(straight, tmp_path)
    sys.stderr.close()  # which the run has replaced


SCRIPT = """
from helpers import standin
from rvrt_jax.training import loop
with standin.installed():
    print(loop.run(standin.config(steps=2, data={"root": "2 workers"}), "run"))
"""


@pytest.mark.parametrize("how", ["-", "-c"])
def test_it_trains_with_workers_from_a_notebook(tmp_path, program_cache, how):
    """Code without a file, which worker processes cannot import as their main module."""
    environment = os.environ | program_cache | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, how] + ([SCRIPT] if how == "-c" else [])
    done = subprocess.run(
        command, input=SCRIPT, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == "True", done.stderr
