"""Lost workers, disks that fail: each run ends as it should, and goes on to the same bits.

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
from helpers.runs import STEPS, ends_like, final, run, saved_steps

from rvrt_jax import files
from rvrt_jax.errors import UserError
from rvrt_jax.training import checkpoint, hosts, run_folder, state
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


def test_a_killed_worker_ends_the_run_with_a_checkpoint(tmp_path, straight, capsys):
    def kill_one() -> None:
        child, *_ = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)

    with standin.after_step(1, kill_one), pytest.raises(UserError) as raised:
        run(tmp_path, data=WORKERS)
    assert "the input has failed after step" in str(raised.value)
    assert "exit code -9" in str(raised.value) and "num_workers" in str(raised.value)
    saved = max(saved_steps(tmp_path))
    assert 1 <= saved < STEPS  # what workers had ready, if anything, was used
    assert f"an error ends the run; step {saved} is saved." in capsys.readouterr().err
    ends_like(straight, tmp_path, data={"root": "1 workers"})


def test_a_killed_run_with_workers_goes_on(tmp_path, straight, program_cache, processes):
    values = standin.config(data=WORKERS).to_dict()
    process = processes(
        target=standin.run_and_die, args=(str(tmp_path), values, program_cache[CACHE], "step 8")
    )
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == -signal.SIGKILL
    ends_like(straight, tmp_path, data={"root": "1 workers"})


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
    assert saved_steps(tmp_path) == {3, 5}
    assert "an error ends the run; step 5 is saved." in capsys.readouterr().err
    ends_like(straight, tmp_path)


@THREADS_RAISE_TOO
def test_a_full_disk_does_not_hide_the_first_exception(tmp_path, straight, capsys, monkeypatch):
    monkeypatch.setattr(training, "RESCUE_PAUSES", (0.1,))
    full = standin.failing("open 5.orbax-checkpoint-tmp*", errno.ENOSPC, times=999)
    with monkeypatch.context() as patch, full, pytest.raises(ArithmeticError, match="something"):
        _break_samples(patch)
        run(tmp_path)
    said = capsys.readouterr().err
    assert "the last steps could not be saved (a checkpoint could not be written to" in said
    assert "the disk is full" in said
    assert 5 not in saved_steps(tmp_path)
    ends_like(straight, tmp_path)


@THREADS_RAISE_TOO
def test_a_disk_full_for_a_moment_costs_no_step(tmp_path, straight, capsys):
    # What failed may be but the note beside the arrays, and step 6 is whole.
    full = standin.failing("open 6.orbax-checkpoint-tmp/*", errno.ENOSPC)
    with full, pytest.raises(UserError, match=r"the disk is full.*from step [36]\."):
        run(tmp_path)
    assert "an error ends the run; step 6 is saved." in capsys.readouterr().err
    ends_like(straight, tmp_path)


@THREADS_RAISE_TOO
def test_a_write_that_failed_ends_before_its_files_are_removed(tmp_path, straight):
    def write_late() -> None:
        time.sleep(3)
        rest = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp" / "rest.orbax-checkpoint-tmp"
        rest.mkdir(parents=True, exist_ok=True)

    saved = final(straight)
    full = standin.failing("open 3.orbax-checkpoint-tmp/_CHECKPOINT_METADATA", errno.ENOSPC)
    late = standin.at("glob.glob 3.orbax-checkpoint-tmp/rest*/ocdbt*", write_late)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        with full, late, pytest.raises(UserError, match="the disk is full"):
            checkpoints.save(3, saved)
            checkpoints.wait()
        time.sleep(4)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(saved), saved)


@THREADS_RAISE_TOO
def test_what_a_failed_write_still_writes_harms_no_other(tmp_path, straight):
    def write_late() -> None:
        rest = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp" / "rest.orbax-checkpoint-tmp"
        rest.mkdir(parents=True, exist_ok=True)
        (rest / "manifest.ocdbt").write_bytes(b"of the write that failed")

    saved = final(straight)
    full = standin.failing("open 3.orbax-checkpoint-tmp/rest*/_METADATA", errno.ENOSPC)
    late = standin.at("os.rename 3.orbax-checkpoint-tmp*/rest*", write_late)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        with full, pytest.raises(UserError, match="the disk is full"):
            checkpoints.save(3, saved)
            checkpoints.wait()
        with late:
            checkpoints.save(3, saved)
            checkpoints.wait()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(saved), saved)


def test_a_read_error_is_tried_again(tmp_path, straight, monkeypatch):
    with standin.signalled(signal.SIGTERM, after=5):
        run(tmp_path)
    assert max(saved_steps(tmp_path)) == 6
    monkeypatch.setattr(files, "PAUSES", (0, 0, 0))
    with standin.failing(READING, errno.ESTALE, times=3):
        ends_like(straight, tmp_path)
    assert not (tmp_path / "checkpoints-damaged").exists()


def test_a_lasting_read_error_stops_the_run_and_changes_nothing(tmp_path, straight, monkeypatch):
    with standin.signalled(signal.SIGTERM, after=5):
        run(tmp_path)
    before = saved_steps(tmp_path)
    monkeypatch.setattr(files, "PAUSES", (0, 0, 0))
    lasting = standin.failing(READING, errno.EIO, times=99)
    with lasting, pytest.raises(UserError, match=r"6 cannot be read .*Input/output.*tried 4 times"):
        run(tmp_path)
    assert saved_steps(tmp_path) == before and not (tmp_path / "checkpoints-damaged").exists()
    ends_like(straight, tmp_path)


def test_damage_that_one_host_alone_sees_ends_all_and_moves_nothing(straight, monkeypatch):
    before = saved_steps(straight)
    with monkeypatch.context() as patch:
        patch.setattr(hosts, "exchange", lambda value: [value, "KeyError: 'rest'"])
        with pytest.raises(
            hosts.Agreed, match=r"12 is damaged as host 1 sees it \(KeyError: 'rest"
        ):
            run(straight)
    assert saved_steps(straight) == before and not (straight / "checkpoints-damaged").exists()


@pytest.mark.parametrize(("minutes", "kept"), [(1e-9, {2, 3}), (0.0, {3})])
def test_checkpoints_by_time(tmp_path, minutes, kept):
    run(tmp_path, steps=3, save_every=100, eval_every=100, save_every_minutes=minutes)
    assert saved_steps(tmp_path) == kept


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
    ends_like(straight, tmp_path)
    sys.stderr.close()  # which the run has replaced


SCRIPT = """
from helpers import command, standin
from rvrt_jax.training import loop
with standin.installed():
    print(loop.run(standin.config(steps=2, data={"root": "2 workers"}), "run"))
"""


@pytest.mark.parametrize("how", [pytest.param("-", marks=pytest.mark.slow), "-c"])
def test_it_trains_with_workers_from_a_notebook(tmp_path, program_cache, how):
    """Code without a file, which worker processes cannot import as their main module."""
    environment = os.environ | program_cache | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, how] + ([SCRIPT] if how == "-c" else [])
    done = subprocess.run(
        command, input=SCRIPT, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip() == "True", done.stderr
