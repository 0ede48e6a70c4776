"""What a run says of its cost: dry runs, traces, the manifest, and the count of its arithmetic."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import standin
from helpers.runs import log_lines, run

from rvrt_jax.errors import UserError
from rvrt_jax.training import flops, manifest
from rvrt_jax.training import loop as training

pytestmark = pytest.mark.usefixtures("program_cache")


def test_products_are_counted_as_often_as_they_run():
    a, b = np.zeros((3, 5), np.float32), np.zeros((5, 7), np.float32)
    product = 2 * 3 * 5 * 7
    assert flops.count(jnp.matmul, a, b) == product
    stacked = np.zeros((4, 3, 5), np.float32)
    assert flops.count(jax.jit(lambda x: jax.lax.map(lambda y: y @ b, x)), stacked) == 4 * product
    again = jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda y: jnp.sin(y @ b))(x)))
    assert flops.count(again, a) == 3 * product  # forward, once more, and backward
    either = lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ b @ b.T @ b, lambda y: y @ b, x)  # noqa: E731
    assert flops.count(either, a) == 3 * product

    image, kernel = np.zeros((2, 8, 9, 6), np.float32), np.zeros((3, 3, 3, 4), np.float32)

    def conv(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )  # fmt: skip

    assert flops.count(conv, image, kernel) == 2 * (2 * 8 * 9 * 4) * (3 * 3 * 3)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, capsys):
    with standin.installed():
        training.run(standin.config(), tmp_path / "run", dry_run=True)
    said = capsys.readouterr().out
    for text in (
        "compiled in ",
        "GiB for state, batch and step",
        "samples/s",
        "12 steps to the end",
    ):
        assert text in said
    assert not list(tmp_path.iterdir())


def test_the_manifest_has_a_line_for_every_start(tmp_path):
    run(tmp_path, steps=2)
    run(tmp_path, steps=4, save_every=2)
    lines = [json.loads(x) for x in (tmp_path / manifest.MANIFEST).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2]
    assert lines[0]["changes"] == []
    assert lines[1]["changes"] == ["save_every: 3 -> 2", "steps: 2 -> 4"]
    for line in lines:
        assert line["versions"]["jax"] == jax.__version__ and line["devices"] == jax.device_count()
    logged = [line for line in log_lines(tmp_path) if "samples_per_second" in line]
    assert len(logged) == 4
    for line in logged:
        assert line["samples_per_second"] == pytest.approx(4 * line["steps_per_second"])
        assert line["tflops"] > 0


def test_a_profile_is_of_as_many_steps_as_were_asked_for(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    steps = []
    next_batch = training._Loop._next_batch

    def counting(self, done):
        steps.append(len(calls))
        return next_batch(self, done)

    monkeypatch.setattr(training._Loop, "_next_batch", counting)
    with standin.installed():
        training.run(standin.config(steps=6), tmp_path, profile_steps=3)
    assert calls == [str(tmp_path / "profile"), "stop"]
    assert steps == [0, 0, 0, 1, 1, 1]  # the third to the fifth step; ended before the sixth
    calls.clear()
    with standin.installed():
        training.run(standin.config(steps=9), tmp_path, profile_steps=30)
    assert calls == [str(tmp_path / "profile"), "stop"]


def test_weights_and_biases_gets_what_tensorboard_gets(tmp_path, monkeypatch):
    logged, finished = {}, []

    class Fake:
        def log(self, values, step):
            logged.setdefault(step, {}).update(values)

        def finish(self):
            finished.append(True)

    def init(**options):
        assert options["project"] == "films" and options["dir"] == str(tmp_path)
        assert options["id"].startswith(tmp_path.name) and options["resume"] == "allow"
        return Fake()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    run(tmp_path, steps=2, wandb_project="films")
    losses = {line["step"]: line["loss"] for line in log_lines(tmp_path) if "loss" in line}
    assert {step: values["train/loss"] for step, values in logged.items() if step} == losses
    assert "validation/psnr_rgb" in logged[2] and finished == [True]


def test_without_weights_and_biases_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"config.wandb_project='films' needs .*pip install wandb"):
        run(tmp_path, steps=2, wandb_project="films")
