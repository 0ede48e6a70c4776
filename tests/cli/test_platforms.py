"""A platform that is not installed ends each command with one line; what TPUs' compiler is told."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvrt_jax import parallel

FLAG = "xla_jf_convolution_performance_target"
ROOT = Path(__file__).parents[2]
CLIP = str(ROOT / "rvrt_jax/assets/clips/cup_hand")


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("cuda", ["-m", "rvrt_jax.cli", "restore", CLIP, "out"]),
        ("tpu", ["eval.py", "--weights=edvr_tiny", f"--input={CLIP}", "--output=out"]),
        ("abacus", ["train.py", "--config=rvrt_tiny", f"--config.data.root={CLIP}"]),
        ("cuda", ["-m", "rvrt_jax.demo", "--no-fetch", "--output=out"]),
    ],
)
def test_a_platform_that_is_not_here_is_one_line(platform, command, tmp_path):
    if command[0].endswith(".py"):
        command = [str(ROOT / command[0]), *command[1:]]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": platform, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        pytest.skip(f"{platform} is here")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: JAX finds no device for JAX_PLATFORMS={platform}: ")
    assert last.endswith("else unset JAX_PLATFORMS.")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("library", "given", "expected"),
    [
        (b"\0xla_jf_convolution_performance_target\0", "", "FLAG=0.9"),
        (b"\0xla_jf_convolution_performance_target\0", "--other=1", "--other=1 FLAG=0.9"),
        (b"\0xla_jf_convolution_performance_target\0", "FLAG=1", "FLAG=1"),
        (b"another version's flags", "", ""),
        (b"", "", ""),
        (None, "--other=1", "--other=1"),
    ],
)
def test_tpus_compiler_is_told_to_search_less_where_it_knows_how(
    monkeypatch, tmp_path, library, given, expected
):
    given, expected = (text.replace("FLAG", f"--{FLAG}") for text in (given, expected))
    package = tmp_path / "libtpu"
    package.mkdir()
    (package / "__init__.py").touch()
    if library is not None:
        (package / "libtpu.so").write_bytes(library)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LIBTPU_INIT_ARGS", given)
    parallel.search_less_on_tpus()
    assert os.environ["LIBTPU_INIT_ARGS"] == expected


def test_without_tpus_nothing_is_told(monkeypatch):
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    parallel.search_less_on_tpus()
    assert "LIBTPU_INIT_ARGS" not in os.environ
