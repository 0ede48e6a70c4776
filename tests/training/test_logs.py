"""What a run tells of its speed, on a clock of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rvrt_jax.training import logs

VALUES = {"loss": 0.5, "psnr": 20.0, "lr": 1e-3}


@pytest.fixture
def clock(monkeypatch):
    """Stands still until it is moved."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(logs, "time", clock := Clock())
    return clock


def test_speed_leaves_out_compiling_and_tells_how_long_input_was_awaited(clock, tmp_path, capsys):
    with logs.Logs(tmp_path, start=10, steps=100) as log:
        with log.untimed():
            clock.now += 60
        with log.waiting():
            clock.now += 2
        clock.now += 6
        log.training(20, VALUES)
        with log.waiting():
            clock.now += 0.1
        clock.now += 9.9
        log.training(30, VALUES)
    first, second = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (first["step"], first["steps_per_second"]) == (20, pytest.approx(10 / 8))
    assert first["input_wait"] == pytest.approx(2 / 8)
    assert (second["steps_per_second"], second["input_wait"]) == pytest.approx((1.0, 0.01))
    err = capsys.readouterr().err
    assert "ETA 0:01:04" in err and "ETA 0:01:10" in err
    assert err.count("went to waiting for input") == 1 and "step 20: 25%" in err


FULL = """
import os, sys
from pathlib import Path
import numpy as np
from rvrt_jax.training import logs

workdir, large = Path(sys.argv[1]), sys.argv[2] == "large"
with logs.Logs(workdir, start=0, steps=50) as log:
    (events,) = (workdir / "tensorboard").iterdir()
    handles = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    (handle,) = [path for path in handles if path.exists() and path.samefile(events)]
    os.dup2(os.open("/dev/full", os.O_WRONLY), int(handle.name))
    if large:  # more than the file's buffer
        log.picture(1, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), tag="a")
    for step in range(1, 51):
        log.training(step, {"loss": 0.5, "psnr": 20.0, "lr": 1e-3})
print("closed")
"""


@pytest.mark.parametrize("size", ["large", "small"])
def test_a_full_disk_costs_tensorboard_alone(tmp_path, size):
    """The disk fails with an event in the middle (large), or when events are flushed at the end.

    In a process of its own, for one that waits for ever cannot be stopped from within.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), size],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,  # generous: other work may share the machine
    )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
    assert done.stderr.count("cannot be written (OSError: [Errno ") == 1
    assert "Traceback" not in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 51))
