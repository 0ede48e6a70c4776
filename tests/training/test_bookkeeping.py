"""What a run keeps of itself: the manifest, traces and the memory of its devices."""

import gzip
import json
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import standin
from helpers.runs import run
from helpers.toy import Toy

from rvrt_jax.training import logs, manifest
from rvrt_jax.training import loop as training
from rvrt_jax.training.settings import Settings

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("program_cache")


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    done = subprocess.run(
        ["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_manifest_tells_the_command_and_the_code(tmp_path, monkeypatch):
    command = ["train.py", "--config=configs/rvrt_tiny.py", "--config.lr=1e-3"]
    monkeypatch.setattr(sys, "argv", command)
    run(tmp_path, steps=1)
    (line,) = map(json.loads, (tmp_path / manifest.MANIFEST).read_text().splitlines())
    assert line["command"] == command
    if (ROOT / ".git").exists():
        assert line["git"]["commit"] == _git(ROOT, "rev-parse", "HEAD")
    else:
        assert line["git"] is None
    assert {"time", "python", "versions", "system", "device", "devices", "hosts"} <= line.keys()


def test_the_code_is_a_commit_and_the_files_that_differ_from_it(tmp_path):
    assert manifest._git(tmp_path) is None  # no checkout
    _git(tmp_path, "init", "--quiet")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("1")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--quiet", "--message=first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert manifest._git(tmp_path) == {"commit": commit, "changed": []}
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("2")
    found = manifest._git(tmp_path)
    assert found is not None and found["commit"] == commit
    assert found["changed"] == [" M a.py", " M b.py"]


def test_a_profile_is_a_trace_of_the_step(tmp_path):
    with standin.installed():
        training.run(standin.config(steps=5), tmp_path, profile_steps=1)
    (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")  # what ui.perfetto.dev opens
    assert list(trace.parent.glob("*.xplane.pb"))  # what TensorBoard opens
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("convolution" in event.get("name", "") for event in events)


def test_the_log_tells_the_memory_of_a_device(tmp_path, monkeypatch):
    class Device:
        def __init__(self, stats):
            self.stats = stats

        def memory_stats(self):
            return self.stats

    values = {"loss": 0.5, "psnr": 20.0, "lr": 1e-3}
    told = {"peak_bytes_in_use": 3 * 2**29, "bytes_limit": 2**34}
    with logs.Logs(tmp_path, start=0, steps=3) as log:
        for step, stats in enumerate((told, {}, None), start=1):  # CPUs know nothing
            monkeypatch.setattr(jax, "local_devices", lambda stats=stats: [Device(stats)])
            log.training(step, values)
    lines = [json.loads(line) for line in (tmp_path / logs.LOG).read_text().splitlines()]
    assert lines[0]["device_memory_gib"] == 1.5
    assert all("device_memory_gib" not in line for line in lines[1:])


def test_the_greeting_tells_whose_the_parameters_are():
    params = {"trunk": {"kernel": np.zeros((3, 2))}, "spynet": np.zeros(5)}
    settings = Settings(steps=8, batch_size=2)
    for more, counts in (
        ({}, "6 parameters and 5 of SpyNet, batch 2"),
        ({"image_denoiser": np.zeros(7)}, "6 parameters and 5 of SpyNet and 7 of FFDNet, batch 2"),
    ):
        current = types.SimpleNamespace(params=params | more, step=0)
        greeting = training._greeting(current, Toy(), settings, Path("run"))
        assert greeting.startswith(f"starting of 8: Toy, {counts}")
