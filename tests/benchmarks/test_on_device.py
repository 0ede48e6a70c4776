"""The kit for the day a chip is there runs on a CPU, small, with jax and flax alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import on_device
from rvrt_jax import models

ROOT = Path(__file__).parents[2]
# Hides all packages but jax, flax and what they need themselves, then runs the program.
BARE = """
import importlib.abc, importlib.metadata as metadata, re, runpy, sys

needed, todo = {"rvrt-jax"}, ["jax", "flax"]
while todo:
    name = re.sub("[-_.]+", "-", todo.pop()).lower()
    if name in needed:
        continue
    needed.add(name)
    try:
        rules = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another platform or Python
        continue
    todo += [re.match(r"[\\w.-]+", rule)[0] for rule in rules if "extra ==" not in rule]

owners = metadata.packages_distributions()

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        found = {re.sub("[-_.]+", "-", owner).lower() for owner in owners.get(name, [])}
        if found and not found & needed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_it_runs_with_jax_and_flax_alone(tmp_path):
    command = [sys.executable, "-c", BARE, str(ROOT / "benchmarks/on_device.py")]
    done = subprocess.run(
        [*command, "--small", "--minutes", "60", "--results", str(tmp_path)],
        cwd=tmp_path,  # not where rvrt_jax would be found anyway
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "on_device_cpu.json").read_text())
    assert result["notes"] == [
        "einops is not installed; benchmarks/einops_standin.py takes its place"
    ]
    assert [row["close"] for row in result["golden outputs"]] == [True]
    frames = {(row["program"], row["dtype"]): row for row in result["frames"]}
    assert {name for name, _ in frames} == {"rvrt_sr", "edvr_l", "basicvsr"}
    for name in ("rvrt_sr", "edvr_l", "basicvsr"):
        assert frames[name, "float32"]["ms a frame"] > 0
        assert 25 < frames[name, "bfloat16"]["dB against float32"] < 100
    for step in result["training step"]:
        assert step["s a step"] > 0 and step["memory GiB"] > 0
    assert [step["dtype"] for step in result["training step"]] == ["float32", "bfloat16"]
    for row in result["forms of operators"]:
        assert float(row["output differs"]) < 1e-5 and float(row["gradient differs"]) < 1e-3
    forms = [row["deform_conv"] for row in result["forms of operators"]]
    assert forms == ["plain", "streamed", "at_once"]
    text = (tmp_path / "on_device_cpu.md").read_text()
    assert "| program | frames | dtype | ms a frame |" in text and "einops is not" in text


@pytest.fixture
def report(tmp_path):
    return on_device.Report(tmp_path, 10, jax.devices()[0])


def read(tmp_path):
    return json.loads((tmp_path / "on_device_cpu.json").read_text())


def test_what_fails_is_one_line_and_the_rest_goes_on(report, tmp_path, capsys):
    def broken():
        raise RuntimeError("no bfloat16 here\nand much more")

    report.measure("frames", "rvrt_sr", broken)
    report.measure("frames", "edvr_l", lambda: {"ms a frame": 3.0})
    assert capsys.readouterr().out.splitlines()[0] == (
        "frames, rvrt_sr: RuntimeError: no bfloat16 here"
    )
    result = read(tmp_path)
    assert result["notes"] == ["frames, rvrt_sr: RuntimeError: no bfloat16 here"]
    assert result["frames"] == [{"program": "edvr_l", "ms a frame": 3.0}]
    assert "| edvr_l | 3.0 |" in (tmp_path / "on_device_cpu.md").read_text()


def test_what_would_take_too_long_is_left_out(tmp_path):
    report = on_device.Report(tmp_path, 0, jax.devices()[0])
    report.measure("frames", "rvrt_sr", lambda: pytest.fail("it was begun"))
    assert read(tmp_path)["notes"][0].startswith("frames, rvrt_sr: left out, since ")


HANGS = """
import pathlib, sys, time
import jax
from benchmarks import on_device

report = on_device.Report(pathlib.Path(sys.argv[1]), 0.02, jax.devices()[0])
report.end_in_time()
report.parts["golden outputs"] = [{"program": "rvrt_sr", "close": sys.argv[2] == "close"}]
report._limit = 100  # what is measured may begin
report.measure("training step", "rvrt_sr", lambda: time.sleep(900))
"""


@pytest.mark.parametrize(("golden", "code"), [("close", 0), ("far", 1)])
def test_what_has_begun_ends_with_the_time(tmp_path, golden, code):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path), golden],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=400,
    )
    assert done.returncode == code
    assert "training step, rvrt_sr: stopped, since" in read(tmp_path)["notes"][0]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_platform_that_is_not_installed_is_one_line(platform, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/on_device.py", "--results", tmp_path],
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        pytest.skip(f"{platform} is here")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("JAX finds no device")
    assert "Traceback" not in done.stderr


def test_decibels_of_known_errors():
    ones = jax.numpy.ones((2, 3))
    assert on_device.decibels(0.5 * ones, 0.6 * ones) == 20.0
    assert on_device.decibels(ones, 5 * ones) == 200.0  # both are clipped to the same


@pytest.mark.parametrize("name", on_device.FORMS)
def test_the_forms_are_fields_of_the_networks(name):
    field = on_device.FORMS[name]
    for value in ("plain", "streamed", "at_once"):
        network = models.build(name, **{field: value})
        video = jax.ShapeDtypeStruct((1, *network.example_size(), 3), jax.numpy.float32)
        jax.eval_shape(network.init, jax.random.key(0), video)  # raises for a value not offered
