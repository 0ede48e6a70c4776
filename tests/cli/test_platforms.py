"""A platform that is asked for and not installed ends each command with one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
