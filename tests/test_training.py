"""Whole runs on a stand-in network: stopping, killing, resuming, and what is left on disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import standin

from rvrt_jax import checkpoint, optim, training
from rvrt_jax.errors import UserError

STEPS = standin.config().steps


def _run(workdir: Path, **changes) -> None:
    with standin.installed():
        training.run(standin.config(**changes), workdir)


def _final(workdir: Path, **changes):
    """Reads the state of the last checkpoint."""
    with standin.installed(), checkpoint.Checkpoints(workdir) as checkpoints:
        config = standin.config(**changes)
        data = iter(standin.train(None, seed=0, batch_size=4))
        result = checkpoints.restore(training._abstract_state(config, standin.Net()), data)
        assert result is not None and checkpoints.latest() == config.steps == int(result.step)
        return result


def _lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def _assert_same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The runs below compile the same few programs over and over."""
    with standin.cached_programs(tmp_path_factory.mktemp("cache")) as environment:
        yield environment


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("straight")
    _run(workdir)
    return workdir


def test_a_run_learns_freezes_and_thaws(straight):
    result = _final(straight)
    fresh = standin.flow_params()
    early = straight.parent / "frozen"
    _run(early, steps=5, lr_floor=1e-7, eval_every=100)
    frozen = _final(early, steps=5)
    _assert_same(frozen.params["spynet"], fresh)
    assert np.any(result.params["spynet"]["conv"]["kernel"] != fresh["conv"]["kernel"])
    losses = [line["loss"] for line in _lines(straight) if "loss" in line]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_the_log_says_what_happened(straight):
    lines = _lines(straight)
    assert lines[0]["step"] == 0 and set(lines[0]["clips"]) == {"noise"}
    assert lines[0]["bicubic"]["psnr_rgb"] == lines[0]["clips"]["noise"]["psnr_rgb"]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    rate = optim.cosine(peak=1e-2, floor=1e-7, steps=STEPS, warmup_steps=2)
    np.testing.assert_allclose(
        [line["lr"] for line in steps], [rate(i) for i in range(STEPS)], rtol=1e-5
    )
    expected = {"step", "loss", "psnr", "grad_norm", "lr", "skipped", "steps_per_second"}
    assert set(steps[0]) == expected
    assert [line["step"] for line in lines if "validation" in line] == [6, 12]
    assert len(list((straight / "tensorboard").iterdir())) == 1


def test_config_json_names_the_model(straight):
    config = json.loads((straight / "config.json").read_text())
    assert config["model"] == {"name": "standin", "width": 8}
    assert config["lr"] == 1e-2


def test_latest_and_best_are_kept(tmp_path):
    # The rate is so high that the validation after 3 steps stays the best one.
    _run(tmp_path, lr=10.0, lr_floor=10.0, warmup_steps=0, eval_every=3, save_every=1, steps=9)
    scores = {x["step"]: x["validation"]["psnr_rgb"] for x in _lines(tmp_path) if "validation" in x}
    best = max(scores, key=scores.__getitem__)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best() == (best, pytest.approx(scores[best]))
        assert checkpoints.latest() == 9
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {best, 8, 9}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves_and_the_same_call_goes_on(tmp_path, straight, number, capsys):
    with standin.signalled(number, after=4):
        _run(tmp_path)  # returns, as train.py then does with exit code 0
    assert (
        f"stopped by {number.name} after step 5 of 12; the same command goes on from step 5"
        in capsys.readouterr().err
    )
    _run(tmp_path)
    assert "resuming at step 5 of 12" in capsys.readouterr().err
    _assert_same(_final(tmp_path), _final(straight))


@pytest.mark.parametrize("kill_at", [1, 6, 11])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, straight, cache, kill_at):
    """Killed before the first checkpoint, while one is being written, and near the end."""
    config_file = tmp_path / "config.json"
    config_file.write_text(json.dumps(standin.config().to_dict()))
    command = [sys.executable, standin.__file__, str(tmp_path / "run"), str(config_file)]
    killed = subprocess.run([*command, str(kill_at)], env=os.environ | cache, timeout=240)
    assert killed.returncode == -signal.SIGKILL
    _run(tmp_path / "run")
    _assert_same(_final(tmp_path / "run"), _final(straight))
    steps = [line["step"] for line in _lines(tmp_path / "run") if "loss" in line]
    assert steps == list(range(1, STEPS + 1))


def test_half_written_and_damaged_checkpoints_are_passed_over(tmp_path, straight, caplog):
    with standin.signalled(signal.SIGTERM, after=7):
        _run(tmp_path)  # leaves checkpoints 6 and 8
    folder = tmp_path / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"6", "8"}
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    for path in (folder / "8" / "rest").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _run(tmp_path)
    assert f"{folder / '8'} is damaged" in caplog.text
    assert len(list((tmp_path / "checkpoints-damaged").glob("8-*"))) == 1
    _assert_same(_final(tmp_path), _final(straight))


def test_a_checkpoint_of_another_structure_is_left_alone(tmp_path):
    _run(tmp_path, steps=2)
    with pytest.raises(UserError, match=r"no checkpoint in .* config\.ema_decay"):
        _run(tmp_path, steps=4, ema_decay=None)
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_a_finished_run_says_so_and_more_steps_go_on(tmp_path, capsys):
    _run(tmp_path, steps=2)
    _run(tmp_path, steps=2)
    assert "done: 2 steps" in capsys.readouterr().err
    _run(tmp_path, steps=3)
    assert "changed in the config since: steps: 2 -> 3" in capsys.readouterr().err
    assert int(_final(tmp_path, steps=3).step) == 3


def test_a_folder_of_another_model_is_refused(tmp_path, straight):
    with pytest.raises(UserError, match=r"another model \(model\.width: 8 -> 9\).*--workdir"):
        _run(straight, model={"name": "standin", "width": 9})


def test_training_stops_after_too_many_skipped_steps(tmp_path, monkeypatch):
    broken = lambda self, index: {k: v * np.nan for k, v in good(self, index).items()}  # noqa: E731
    good = standin.Noise.map
    monkeypatch.setattr(standin.Noise, "map", broken)
    monkeypatch.setattr(standin, "validation", lambda config: [])
    with pytest.raises(UserError, match=r"3 steps in a row up to step 3 .* config\.lr"):
        _run(tmp_path)
    line = _lines(tmp_path)[-1]
    assert line["loss"] is None and line["skipped"] == 2


def test_values_that_cannot_work_are_refused_at_once(tmp_path):
    for change, message in (
        ({"steps": 0}, "config.steps=0"),
        ({"lr_floor": 1.0}, "lr_floor"),
        ({"model": {"name": "standin", "depth": 3}}, "standin has no field depth"),
        ({"model": {"name": "nothing"}}, "unknown model 'nothing'"),
    ):
        with pytest.raises(UserError, match=message):
            _run(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()
