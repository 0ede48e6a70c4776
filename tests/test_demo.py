"""The demo with a network that only repeats pixels."""

import json

import cv2
import numpy as np
import pytest
from helpers.toy import PARAMS, Toy

from rvrt_jax import demo
from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.data.degrade import bicubic_down
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import bundled, metrics
from rvrt_jax.media.frames import open_frames
from rvrt_jax.weights import load as loading

CLIP = "dog_phone"


@pytest.fixture
def weights(monkeypatch):
    """Puts the toy in the place of all weights, and those that are fetched out of reach."""
    made_up = {
        "b": Toy(scale=2),
        "rvrt_denoise_small": Toy(scale=1, takes_noise_level=True),
        "rvrt_deblur_small": Toy(scale=1),
        "sharper": Toy(scale=1),
    }

    def load(path):
        return loading.Loaded(made_up.get(path, Toy()), PARAMS, source=path, license="none")

    def get(name):
        raise UserError(f"{name} cannot be had.")

    monkeypatch.setattr(demo.loading, "load_described", load)
    monkeypatch.setattr(demo.fetch, "get", get)


def test_restores_scores_and_compares(weights, tmp_path, capsys):
    output = tmp_path / "out"
    assert demo.main(["--output", str(output), "--clip", CLIP]) == 0
    out, err = capsys.readouterr()
    truth = load_folders(BUNDLED)[CLIP]
    restored = bicubic_down(truth, 4).repeat(4, axis=1).repeat(4, axis=2)
    pairs = zip(restored, truth, strict=True)
    psnr = np.mean([metrics.frame_scores(*pair)["psnr_rgb"] for pair in pairs])
    scores = json.loads((output / "scores.json").read_text())
    assert list(scores["tasks"]) == ["sr", "denoise50", "deblur"]
    enlarged, denoised, deblurred = scores["tasks"].values()
    assert list(enlarged) == ["input", "bicubic", "rvrt_small", "edvr_tiny"]
    assert enlarged["rvrt_small"]["psnr_rgb"] == pytest.approx(psnr)
    assert any(line.startswith(f"rvrt_small  {psnr:.2f}  ") for line in out.splitlines())
    assert list(denoised) == ["noisy", "non-local means", "rvrt_denoise_small"]
    assert list(deblurred) == ["blurred", "unsharp mask", "rvrt_deblur_small"]
    assert denoised["non-local means"]["psnr_rgb"] > denoised["noisy"]["psnr_rgb"] + 5
    assert "basicvsr_reds4 cannot be had" in err
    assert list(scores["left_out"]) == ["basicvsr_reds4", "ffdnet_color"]
    with open_frames(output / "restored.mp4") as video:
        frames = video.read_all()
    assert frames.shape == truth.shape
    assert metrics.psnr(frames[0], restored[0]) > 35  # but for H.264
    panels = 5  # with the ground truth
    picture = cv2.imread(str(output / "comparison.png"))
    assert picture.shape[1] == panels * 320 + (panels - 1) * 6


def test_a_network_of_ones_own(weights, tmp_path, capsys):
    output = tmp_path / "out"
    assert demo.main(["--output", str(output), "--clip", CLIP, "--weights", "a"]) == 0
    scores = json.loads((output / "scores.json").read_text())
    assert list(scores["tasks"]) == ["sr"] and list(scores["tasks"]["sr"])[2:] == ["a"]


def test_deblurring_by_a_network_of_ones_own(weights, tmp_path):
    options = ["--clip", CLIP, "--tasks", "deblur", "--weights", "sharper"]
    assert demo.main(["--output", str(tmp_path / "out"), *options]) == 0
    scores = json.loads((tmp_path / "out/scores.json").read_text())["tasks"]["deblur"]
    # The toy changes nothing, so that what it scores is what its input does.
    assert scores["sharper"]["psnr_rgb"] == pytest.approx(scores["blurred"]["psnr_rgb"])


def test_mistakes(weights, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    for options, message in (
        (["--clip", "nobody"], "there is no clip 'nobody'; choose from city_night, "),
        (["--weights", "b"], "b holds no network for x4 super-resolution"),
        (["--tasks", "colour"], "no tasks ['colour']; choose from sr, "),
        (["--tasks", "sr", "deblur", "--weights", "a"], "--weights are for one task"),
        (["--output", str(tmp_path / "taken")], "taken exists"),
    ):
        assert demo.main(["--output", str(tmp_path / "out"), *options]) != 0
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_every_task_degrades_a_clip_the_same_way_each_time():
    truth = load_folders(BUNDLED)[CLIP]
    for task in bundled.TASKS.values():
        posed, again = bundled.pose(task, CLIP), bundled.pose(task, CLIP)
        np.testing.assert_array_equal(posed.lq, again.lq)
        assert posed.shown.shape == posed.truth.shape and posed.shown.dtype == np.uint8
        assert posed.lq.shape[1] * task.scale == posed.truth.shape[1]
        if task.sigma is None:
            continue
        noise = 255 * (posed.lq - np.float32(truth) / 255)
        assert np.std(noise) == pytest.approx(task.sigma, rel=0.01)
