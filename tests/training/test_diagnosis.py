"""What a run says of its cost: dry runs, traces, the manifest, and the count of its arithmetic."""

import json
import os
import re
import shutil
import signal
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import noise, standin
from helpers.runs import log_lines, run

from rvrt_jax.data import pipeline
from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError
from rvrt_jax.training import flops, hosts, manifest, rehearsal, state
from rvrt_jax.training import loop as training
from rvrt_jax.training.feed import Feed
from rvrt_jax.training.stop import StopRequest

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


def test_a_dry_run_times_the_input_and_not_what_was_made_ahead(tmp_path, capsys, monkeypatch):
    """Two workers make a batch in 0.4 s each, and may hold more than 20 of them."""
    monkeypatch.setattr(pipeline, "Sampler", lambda options, seed, targets: noise.Slow(seed))
    monkeypatch.setattr(pipeline, "validation", standin.validation)
    before = rehearsal._seconds_a_step

    def after_a_while(*arguments):
        time.sleep(5)  # in which they make some, as while a large network compiles
        return before(*arguments)

    monkeypatch.setattr(rehearsal, "_seconds_a_step", after_a_while)
    data = {"root": "nowhere", "num_workers": 2, "prefetch": 48, "num_frames": 2, "gt_size": 32}
    with standin.installed(data=False):
        training.run(standin.config(data=data, steps=1000), tmp_path / "run", dry_run=True)
    said = capsys.readouterr().out
    fed, rate = re.search(r"its input (\S+) s: (\S+) samples/s", said).groups()
    assert float(fed) > 0.15 and float(rate) == pytest.approx(4 / float(fed), rel=0.02)
    assert "the input is the limit" in said
    hours, minutes, seconds = map(int, re.search(r"end: (\d+):(\d+):(\d+),", said).groups())
    left = 3600 * hours + 60 * minutes + seconds
    assert left == pytest.approx(1000 * float(fed), rel=0.02)


def test_the_input_of_a_dry_run_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(rehearsal, "LONGEST", 0.5)
    taken = []

    def slow():
        while True:
            time.sleep(0.1)
            taken.append({})
            yield taken[-1]

    options = DataOptions(num_workers=8, prefetch=800)
    fed = rehearsal._seconds_a_batch(slow(), options, 4, StopRequest())
    assert 0.1 <= fed and len(taken) <= 6


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_goes_on_from_the_run_in_the_folder_and_checks_it(tmp_path, capsys, monkeypatch):
    assert run(tmp_path, steps=3)
    before = _files(tmp_path)
    capsys.readouterr()

    def rehearse(**changes):
        with standin.installed():
            return training.run(standin.config(**changes), tmp_path, dry_run=True)

    # What the run started from is not needed any more.
    assert rehearse(steps=12, log_every=2, init_from="gone.safetensors")
    said = capsys.readouterr().out
    for text in (
        "changed in the config since: init_from: None -> gone.safetensors; log_every: 1 -> 2; ",
        "resuming at step 3 of 12",
        "\n9 steps to the end: ",
        "dry run: nothing was written",
    ):
        assert text in said
    with pytest.raises(UserError, match=r"holds a run of another model"):
        rehearse(model={"name": "standin", "width": 9})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        with pytest.raises(UserError, match=r"wandb_project='films' needs .*pip install wandb"):
            rehearse(wandb_project="films")
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
        with pytest.raises(UserError, match=r"has 1 MiB free; its checkpoints, 1 MiB each"):
            rehearse()
    with monkeypatch.context() as patch:
        patch.setattr(hosts, "exchange", lambda value: [value, "0"])
        with pytest.raises(hosts.Agreed, match="checkpoint is 3 on host 0 and 0 on host 1"):
            rehearse()
    assert _files(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_a_dry_run(tmp_path, capsys, monkeypatch, number):
    before = state.fresh

    def signalled(*arguments):
        os.kill(os.getpid(), number)
        return before(*arguments)

    monkeypatch.setattr(state, "fresh", signalled)
    with standin.installed():
        assert not training.run(standin.config(), tmp_path / "run", dry_run=True)
    said = capsys.readouterr().out
    assert said == f"stopped by {number.name}.\ndry run: nothing was written\n"
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
    next_batch = Feed.next

    def counting(self, done, *, save):
        steps.append(len(calls))
        return next_batch(self, done, save=save)

    monkeypatch.setattr(Feed, "next", counting)
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
