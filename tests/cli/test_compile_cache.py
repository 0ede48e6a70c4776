"""Where compiled programs are kept, and that every command keeps them there."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.toy import PARAMS, Toy
from jax.experimental.compilation_cache import compilation_cache

from rvrt_jax import command_line, demo
from rvrt_jax.cli import rvrt
from rvrt_jax.media.frames import open_writer
from rvrt_jax.web import __main__ as web
from rvrt_jax.weights import load as loading

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch, tmp_path):
    """No environment variable says anything but where the user's cache is; JAX's options return."""
    for name in ("RVRT_JAX_COMPILE_CACHE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path / "user"))
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def kept_in():
    return jax.config.jax_compilation_cache_dir


def test_the_folder_is_the_users_unless_told(tmp_path, monkeypatch):
    command_line.keep_programs(None)
    assert kept_in() == str(tmp_path / "user/programs")
    assert (tmp_path / "user/programs").stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_max_size == command_line.MOST_KEPT
    command_line.keep_programs(None)  # what JAX is told, by its own variable too, stays
    assert kept_in() == str(tmp_path / "user/programs")
    command_line.keep_programs(str(tmp_path / "own"))
    assert kept_in() == str(tmp_path / "own")
    command_line.keep_programs("off")
    assert kept_in() is None
    monkeypatch.setenv("RVRT_JAX_COMPILE_CACHE", str(tmp_path / "variable"))
    command_line.keep_programs(None)
    assert kept_in() == str(tmp_path / "variable")


def test_off_by_the_variable_leaves_jax_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RVRT_JAX_COMPILE_CACHE", "off")
    command_line.keep_programs(None)
    assert kept_in() is None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jax"))
    command_line.keep_programs(None)
    assert kept_in() == str(tmp_path / "jax")
    command_line.keep_programs("off")
    assert kept_in() is None


def test_a_folder_that_cannot_be_made_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    command_line.keep_programs(str(tmp_path / "file/folder"))
    assert kept_in() is None
    (message,) = caplog.messages
    assert message.startswith("compiled programs are not kept: ") and "file/folder" in message


def test_a_restoration_finds_the_programs_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(
        loading, "load_described", lambda *_, **__: loading.Loaded(Toy(blur=True), PARAMS)
    )
    monkeypatch.setattr(loading, "config", lambda model: {"name": "toy"})
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    folder, source = tmp_path / "programs", tmp_path / "in.mkv"
    frames = np.random.default_rng(0).integers(0, 255, (4, 24, 32, 3)).astype(np.uint8)
    with open_writer(source, fps=25, height=24, width=32) as writer:
        for frame in frames:
            writer.write(frame)

    def restore(output):
        jax.clear_caches()
        compilation_cache.reset_cache()
        command = ["restore", str(source), str(tmp_path / output), "--compile_cache", str(folder)]
        result = CliRunner().invoke(rvrt, command)
        assert result.exit_code == 0, result.output
        return sorted(path.name for path in folder.glob("*-cache"))

    first = restore("first.mkv")
    assert any("apply" in name for name in first)
    assert restore("second.mkv") == first


@pytest.mark.parametrize(
    "command",
    [
        ["train.py", "--config=rvrt_tiny", "--config.data.root=nowhere"],
        ["eval.py", "--input=nowhere", "--weights=edvr_tiny", "--output=out.mp4"],
    ],
)
def test_training_and_evaluation_take_the_option(command, tmp_path):
    """They end at what is missing, after they have chosen the folder."""
    program, *arguments = command
    done = subprocess.run(
        [sys.executable, ROOT / program, *arguments, "--compile_cache=programs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "nowhere" in done.stderr
    assert (tmp_path / "programs").is_dir() and not (tmp_path / "user").exists()


@pytest.mark.parametrize("program", [web, demo], ids=["web", "demo"])
def test_the_page_and_the_demo_take_the_option(program, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "run", lambda *_, **__: None)
    assert program.main([]) == 0
    assert kept_in() == str(tmp_path / "user/programs")
    jax.config.update("jax_compilation_cache_dir", None)
    assert program.main(["--compile_cache", str(tmp_path / "programs")]) == 0
    assert kept_in() == str(tmp_path / "programs")
