"""A file of the published keys and shapes goes through every door, and back without a bit lost."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import goldens
from helpers.films import smooth

from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.data.degrade import bicubic_down
from rvrt_jax.media.frames import open_frames, open_writer
from rvrt_jax.weights import load as loading
from rvrt_jax.weights import pth

ROOT = Path(__file__).parents[2]
VARIANTS = json.loads((ROOT / "tests/golden/convert/variants.json").read_text())
EDVR = json.loads((ROOT / "tests/golden/edvr/variants.json").read_text())


def command(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_parameter(key):
    return "relative_position_index" not in key and key not in ("spynet.mean", "spynet.std")


@pytest.mark.slow  # compiles a network of 11 million parameters: minutes
@pytest.mark.parametrize(
    "variant, config, scale",
    [
        ("rvrt_sr", "rvrt_sr", 4),
        ("rvrt_deblur", "rvrt_deblur_gopro", 1),
        ("rvrt_denoise",) * 2 + (1,),
    ],
)
def test_a_published_file_restores_and_comes_back(tmp_path, variant, config, scale):
    shapes = VARIANTS[variant]["state_dict"]
    state = {k: goldens.fill(k, tuple(shape), 0) for k, shape in shapes.items() if is_parameter(k)}
    checkpoint = tmp_path / "published.pth"
    pth.write(checkpoint, state)
    model, params = loading.load_pth(checkpoint, variant)
    back = loading.to_state_dict(model, params)
    assert set(filter(is_parameter, back)) == state.keys()

    frames = smooth(3, height=17, width=22)
    (tmp_path / "in").mkdir()
    for k, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "in" / f"{k:03d}.png"), frame[..., ::-1])
    sigma = ["--sigma", 10] if variant == "rvrt_denoise" else []
    config = f"configs/{config}.py"
    files = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
    command("eval.py", "--config", config, "--weights", checkpoint, *files, *sigma)
    images = [cv2.imread(str(path)) for path in sorted((tmp_path / "out").iterdir())]
    assert [image.shape for image in images] == [(17 * scale, 22 * scale, 3)] * 3

    kept, again = tmp_path / "kept.safetensors", tmp_path / "again.pth"
    command("-m", "rvrt_jax.convert", checkpoint, kept, "--license", "CC-BY-NC-4.0")
    command("-m", "rvrt_jax.convert", kept, again)
    returned = pth.read(again)
    assert returned.keys() == shapes.keys()  # the buffers too, which PyTorch wants
    for key, array in state.items():
        np.testing.assert_array_equal(returned[key], array, err_msg=key)


@pytest.fixture
def film(tmp_path):
    """A real clip of seven frames of 80x48 in an MP4."""
    frames = bicubic_down(load_folders(BUNDLED)["cup_hand"][:7], 4)
    with open_writer(tmp_path / "clip.mp4", fps=25, height=48, width=80) as writer:
        for frame in frames:
            writer.write(frame)
    return tmp_path / "clip.mp4"


@pytest.mark.slow
def test_published_edvr_files_restore_a_video_in_two_stages(film, tmp_path):
    names = ("EDVR_M_x4_SR_REDS", "EDVR_Stage2_SR_REDS_oldkeys")
    for name in names:
        shapes = EDVR[name]["state_dict"]
        state = {key: goldens.fill(key, tuple(shape), 0) for key, shape in shapes.items()}
        pth.write(tmp_path / f"{name}.pth", state)
    first, second = (tmp_path / f"{name}.pth" for name in names)
    restore = ["eval.py", "--config", "configs/edvr_m.py", "--weights", first, "--input", film]
    command(*restore, "--output", tmp_path / "once.mp4", "--json", tmp_path / "once.json")
    command(*restore, "--output", tmp_path / "twice.mp4", "--stage2", second, "--quantise")
    for name in ("once", "twice"):
        with open_frames(tmp_path / f"{name}.mp4") as video:
            assert video.read_all().shape == (7, 192, 320, 3)
    (clip,) = json.loads((tmp_path / "once.json").read_text())["clips"]
    assert clip["told"]["offset_max"] > clip["told"]["offset_mean"] > 0
