"""The library as other programs see it."""

import inspect
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.toy import PARAMS, Toy

import rvrt_jax
from rvrt_jax.errors import UserError

ROOT = Path(__file__).parents[1]
CLIP = np.random.default_rng(0).integers(0, 256, (4, 8, 10, 3), np.uint8)


@pytest.mark.parametrize("name", rvrt_jax.__all__)
def test_public_names_say_what_they_take(name):
    function = getattr(rvrt_jax, name)
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name}"
        assert parameter.name in function.__doc__, f"{name}: {parameter.name} is not explained"
    assert signature.return_annotation is not signature.empty


@pytest.fixture
def images(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(len(CLIP))]
    for path, frame in zip(paths, CLIP, strict=True):
        cv2.imwrite(str(path), frame[..., ::-1])
    return paths


def test_restore_takes_arrays_frames_and_paths(images, tmp_path):
    expected = rvrt_jax.restore(Toy(), PARAMS, CLIP)
    folder = tmp_path
    for frames in (
        list(CLIP),
        (frame for frame in CLIP),
        tuple(CLIP),
        images,
        [str(path) for path in images],
        folder,
        str(folder / "*.png"),
        [CLIP[0], images[1], CLIP[2], str(images[3])],
    ):
        assert np.array_equal(rvrt_jax.restore(Toy(), PARAMS, frames), expected)


def test_restore_explains_frames_that_make_no_clip(images, tmp_path):
    (tmp_path / "two").mkdir()
    for path in images[:2]:
        (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
    for frames, message in (
        ([], "no frames"),
        ([CLIP[0], CLIP[1, :4]], r"frame 1 is \(4, 10, 3\) uint8, frame 0 is \(8, 10, 3\)"),
        ([CLIP[0], CLIP[1].astype(np.float32)], "frame 1 is .* float32"),
        ([CLIP[0], tmp_path / "two"], "frame 1, .*two, holds 2 frames"),
        (CLIP[0], r"shape \(8, 10, 3\)"),
        (tmp_path / "nowhere.mp4", "nowhere.mp4"),
    ):
        with pytest.raises(UserError, match=message):
            rvrt_jax.restore(Toy(), PARAMS, frames)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").iterdir()), ids=lambda path: path.name)
def test_examples_are_short(path):
    assert len([line for line in path.read_text().splitlines() if line]) < 20


def test_the_opencv_example_restores_a_film(tmp_path):
    film = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (32, 16)
    )
    for shade in (60, 120, 180):
        film.write(np.full((16, 32, 3), (0, shade // 2, shade), np.uint8))
    film.release()
    command = [sys.executable, ROOT / "examples/opencv_frames.py", "clip.mp4", "out/"]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    restored = [cv2.imread(str(path)) for path in sorted((tmp_path / "out").iterdir())]
    assert [frame.shape for frame in restored] == [(64, 128, 3)] * 3
    for frame, shade in zip(restored, (60, 120, 180), strict=True):
        assert np.abs(frame.mean((0, 1)) - (0, shade // 2, shade)).max() < 8  # BGR, as it was


def test_the_vapoursynth_example_restores_a_clip():
    """VapourSynth's wheels need Python 3.12 or newer."""
    vapoursynth = pytest.importorskip("vapoursynth", reason="vapoursynth is not installed")
    names = {"clip": vapoursynth.core.std.BlankClip(None, 32, 16, vapoursynth.RGB24, 3)}
    exec((ROOT / "examples/vapoursynth_clip.py").read_text(), names)
    restored = names["restored"]
    assert (restored.width, restored.height, restored.num_frames) == (128, 64, 3)
    assert np.abs(np.asarray(restored.get_frame(2)[0])).max() < 8
