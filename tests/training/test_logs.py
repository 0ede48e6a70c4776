"""What a run tells of its speed, on a clock of its own."""

import json

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
