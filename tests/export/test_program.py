"""A `.rvrt` file runs where only JAX and NumPy are, and says what it cannot do."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.small import small

import rvrt_jax
from rvrt_jax.cli import rvrt
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import bundled
from rvrt_jax.export import program
from rvrt_jax.export.__main__ import main
from rvrt_jax.export.write import export

# Runs the file in a process whose imports are watched: whatever it loads must belong to JAX.
RUN = """
import importlib.abc, runpy, sys
import numpy as np

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.split(".")[0] in REFUSED:
            raise ModuleNotFoundError(fullname, name=fullname)

file, video, output, refused = sys.argv[1:]
REFUSED = set(refused.split(","))
sys.meta_path.insert(0, Refuse())
network = runpy.run_path(file)["load"](file)
np.save(output, network(np.load(video)))
print(network.header["license"])
"""
NOT_OURS = "rvrt_jax,flax,optax,orbax,einops,safetensors,onnx,av,cv2,PIL,absl,ml_collections,tqdm"


def run_alone(file: Path, video: np.ndarray) -> tuple[np.ndarray, str]:
    """Runs a file where only JAX and NumPy are; returns the result, and the licence it names."""
    source, output = file.with_name("in.npy"), file.with_name("out.npy")
    np.save(source, video)
    done = subprocess.run(
        [sys.executable, "-c", RUN, file, source, output, NOT_OURS],
        cwd=file.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.load(output), done.stdout.strip()


@pytest.mark.parametrize("name", ["rvrt", "edvr", "basicvsr"])
def test_it_runs_with_jax_and_numpy_alone(tmp_path, name):
    loaded, size = small(name)
    fixed = program.Fixed(loaded, size)
    program.write(tmp_path / "net.rvrt", fixed, ("cpu", "cuda", "tpu"))
    video = np.random.default_rng(0).random(fixed.input.shape, np.float32)
    computed, license = run_alone(tmp_path / "net.rvrt", video)
    assert license == loaded.license
    expected = jax.jit(loaded.model.apply)({"params": loaded.params}, video)
    np.testing.assert_allclose(computed, expected, atol=1e-6, rtol=0)


def test_python_runs_the_file_itself(tmp_path):
    loaded, size = small("basicvsr")
    fixed = program.Fixed(loaded, size)
    program.write(tmp_path / "net.rvrt", fixed, ("cpu",))
    video = np.random.default_rng(0).random(fixed.input.shape, np.float32)
    np.save(tmp_path / "video.npy", video)
    for arguments, code in ((["video.npy", "restored.npy"], 0), (["video.npy"], 1)):
        command = [sys.executable, "net.rvrt", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert done.stderr == "usage: python net.rvrt VIDEO.npy RESTORED.npy\n"
    expected = jax.jit(loaded.model.apply)({"params": loaded.params}, video)
    np.testing.assert_allclose(np.load(tmp_path / "restored.npy"), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_trained_network_runs_with_jax_and_numpy_alone(tmp_path):
    size = ["--frames=8", "--height=96", "--width=160"]
    assert main(["rvrt_small", str(tmp_path / "net.rvrt"), *size, "--platforms=cpu,cuda,tpu"]) == 0
    model, params = rvrt_jax.load("rvrt_small")
    clip = bundled.clips()["dog_phone"][:8].astype(np.float32) / 255
    video = clip.reshape(1, 8, 96, 2, 160, 2, 3).mean(axis=(3, 5))
    computed, license = run_alone(tmp_path / "net.rvrt", video)
    assert license == "Apache-2.0"
    expected = jax.jit(model.apply)({"params": params}, video)
    np.testing.assert_allclose(computed, expected, atol=1e-6, rtol=0)


def test_the_file_says_what_is_in_it(tmp_path):
    loaded, size = small("denoise")
    file = tmp_path / "net.rvrt"
    program.write(file, program.Fixed(loaded, size), ("cpu", "cuda"))
    with zipfile.ZipFile(file) as members:
        header = json.loads(members.read("header.json"))
        stored = jax.export.deserialize(bytearray(members.read("program.stablehlo")))
    assert stored.platforms == ("cpu", "cuda")
    assert header["platforms"] == ["cpu", "cuda"]
    assert header["format"] == 1
    assert header["jax"] == jax.__version__
    assert tuple(header["input"]["shape"]) == stored.in_avals[-1].shape == (1, *size, 4)
    assert tuple(header["output"]["shape"]) == stored.out_avals[0].shape == (1, *size, 3)
    assert (header["license"], header["source"]) == (loaded.license, loaded.source)
    assert header["model"]["name"] == "rvrt" and header["model"]["nonblind_denoising"]


def test_the_same_network_gives_the_same_bytes(tmp_path):
    loaded, size = small("basicvsr")
    for name in ("a.rvrt", "b.rvrt"):
        program.write(tmp_path / name, program.Fixed(loaded, size), ("cpu",))
    assert (tmp_path / "a.rvrt").read_bytes() == (tmp_path / "b.rvrt").read_bytes()


@pytest.mark.parametrize(
    "name, size, message",
    [
        ("rvrt", (3, 8, 8), "3 frames.*multiple of 2.*--frames 4"),
        ("denoise", (2, 9, 16), "9x16.*multiples of 4.*--height 12 --width 16"),
        ("edvr", (8, 16, 16), "8 frames.*window of 5.*--frames 5"),
        ("edvr", (5, 18, 16), "18x16.*multiples of 4.*--height 20 --width 16"),
        ("basicvsr", (2, 0, 16), "1 or more"),
    ],
)
def test_a_size_that_the_network_cannot_take_is_refused(name, size, message):
    loaded, _ = small(name)
    with pytest.raises(UserError, match=message):
        program.Fixed(loaded, size)


def test_other_mistakes_are_explained(tmp_path, capsys):
    size = ["--frames", "5", "--height", "16", "--width", "16"]
    taken = tmp_path / "taken.rvrt"
    taken.write_text("mine")
    for arguments, message in (
        (["edvr_tiny", "out.pb"], "ends in none of .rvrt, .onnx"),
        (["edvr_tiny", str(taken)], "exists"),
        (["no_such_model", "out.rvrt"], "no_such_model"),
        (["edvr_tiny", "out.rvrt", "--platforms", "cpu,abacus"], "cpu,abacus.*choose from"),
    ):
        assert main([*arguments, *size]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and re.search(message, error)
    assert taken.read_text() == "mine"


def test_the_command_writes_a_file_and_names_its_licence(tmp_path):
    output = tmp_path / "out.rvrt"
    command = ["edvr_tiny", str(output), "--frames", "5", "--height", "16", "--width", "20"]
    done = CliRunner().invoke(rvrt, ["export", *command, "--platforms", "cpu"])
    assert done.exit_code == 0
    printed = done.output
    assert "(1, 5, 16, 20, 3) -> (1, 1, 64, 80, 3)" in printed and "Apache-2.0" in printed
    assert zipfile.is_zipfile(output)


def test_without_flatbuffers_the_extra_is_named(tmp_path, monkeypatch):
    loaded, size = small("basicvsr")

    def missing(*_):
        raise ModuleNotFoundError("No module named 'flatbuffers'", name="flatbuffers")

    monkeypatch.setattr(jax.export.Exported, "serialize", missing)
    with pytest.raises(UserError, match=r"flatbuffers is not installed.*rvrt_jax\[export\]"):
        program.write(tmp_path / "net.rvrt", program.Fixed(loaded, size), ("cpu",))
    assert not list(tmp_path.iterdir())


def test_the_loader_explains_wrong_files_and_videos(tmp_path):
    from rvrt_jax.export import loader

    other = tmp_path / "other.rvrt"
    other.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="not a .rvrt file"):
        loader.load(str(other))
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("header.json", json.dumps({"format": 2}))
    with pytest.raises(ValueError, match="format 2, but this program reads 1"):
        loader.load(str(other))
    export("edvr_tiny", str(tmp_path / "net.rvrt"), size=(5, 16, 16), platforms=["cpu"])
    network = loader.load(str(tmp_path / "net.rvrt"))
    with pytest.raises(ValueError, match=r"uint8.*takes float32 \(1, 5, 16, 16, 3\)"):
        network(np.zeros((1, 5, 16, 16, 3), np.uint8))
