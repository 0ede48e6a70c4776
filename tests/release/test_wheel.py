"""What people get: the wheel, not the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RESTORE = ["rvrt_jax.demo", "--no-fetch", "--weights", "edvr_tiny", "--output", "demo"]
# Runs a module without the hook by which an editable install finds the checkout.
WITHOUT_CHECKOUT = """
import runpy, sys
sys.meta_path = [f for f in sys.meta_path if not f.__module__.startswith("__editable__")]
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in files("."):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", output, source])
    (built,) = output.glob("*.whl")
    return built


def files(folder: str) -> list[str]:
    """Returns the files of the checkout, those not committed yet too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    return [name for name in run(command, cwd=ROOT).splitlines() if (ROOT / name).exists()]


def run(command: list, *, cwd: Path | None = None, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def gain(folder: Path) -> float:
    """Returns what the demo says edvr_tiny gained over bicubic, in dB."""
    assert (folder / "demo/restored.mp4").stat().st_size > 10_000
    scores = json.loads((folder / "demo/scores.json").read_text())
    _, bicubic, small = (version["psnr_rgb"] for version in scores["tasks"]["sr"].values())
    return small - bicubic


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == {
        *files("rvrt_jax"),
        *files("configs"),
    }
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_restores_a_clip(wheel, tmp_path):
    """With the packages that are installed here, but not the checkout."""
    run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-t", tmp_path / "at", wheel])
    path = {"PYTHONPATH": str(tmp_path / "at"), "PYTHONSAFEPATH": "1"}
    run([sys.executable, "-c", WITHOUT_CHECKOUT, *RESTORE], cwd=tmp_path, **path)
    assert gain(tmp_path) > 5  # dB; the model card says 6.2


@pytest.mark.parametrize(
    "jax, kept", [("0.10.1", True), ("0.12.0.1", True), ("0.10.0", False), ("0.13.0", False)]
)
def test_an_installed_jax_is_left_alone(wheel, tmp_path, jax, kept):
    """As on Colab, where the notebooks' first line meets one that fits its driver and plugins."""
    for name, version in {"jax": jax, "jaxlib": jax, "flax": "0.12.8"}.items():
        folder = tmp_path / "at" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--no-index"]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [*command, "--report", report, f"{wheel}[notebooks]"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "at"), "PIP_FIND_LINKS": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == kept, done.stderr
    if kept:
        installed = [item["metadata"]["name"] for item in json.loads(report.read_text())["install"]]
        assert installed == ["rvrt_jax"]
    else:
        assert "jax<0.13,>=0.10.1" in done.stderr


@pytest.mark.slow
def test_the_wheel_restores_a_clip_in_an_empty_environment(wheel, tmp_path):
    run([sys.executable, "-m", "venv", tmp_path / "venv"])
    python = tmp_path / "venv/bin/python"
    run([python, "-m", "pip", "install", "-q", wheel])
    run([python, "-m", *RESTORE], cwd=tmp_path)
    assert "edvr_tiny" in run([tmp_path / "venv/bin/rvrt", "weights", "list"])
    assert gain(tmp_path) > 5


def test_the_citation_goes_with_the_release():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    for key in ("cff-version", "message", "title", "authors"):
        assert citation[key]
    assert {paper["year"] for paper in citation["references"]} == {2019, 2021, 2022}


@pytest.mark.parametrize("name, extra", [("Dockerfile", "."), ("Dockerfile.cuda", ".[cuda]")])
def test_docker_files_copy_what_they_install(name, extra):
    """They are not built here: that needs a Docker engine."""
    lines = (ROOT / name).read_text().splitlines()
    (install,) = (line for line in lines if line.startswith("RUN pip install"))
    assert install.split()[-1].strip("'") == extra
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = ("rvrt_jax", "configs", "pyproject.toml", "README.md", "LICENSE")
    assert not set(needed) & set(ignored)
    (entry,) = (line for line in lines if line.startswith("ENTRYPOINT"))
    (program,) = json.loads(entry.removeprefix("ENTRYPOINT"))
    assert program in PROJECT["scripts"]
