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
from rvrt_jax.evaluation import metrics
from rvrt_jax.media.frames import open_frames
from rvrt_jax.weights import load as loading

CLIP = "dog_phone"


@pytest.fixture
def weights(monkeypatch):
    """Puts the toy in the place of all weights, and BasicVSR's out of reach."""
    made_up = {"b": Toy(scale=2)}

    def load(path):
        return loading.Loaded(made_up.get(path, Toy()), PARAMS, source=path, license="none")

    def get(name):
        raise UserError(f"{name} cannot be had.")

    monkeypatch.setattr(demo.loading, "load_described", load)
    monkeypatch.setattr(demo.fetch, "get", get)


def test_restores_scores_and_compares(weights, tmp_path, capsys):
    output = tmp_path / "out"
    assert demo.main(["--output", str(output), "--clip", CLIP, "--weights", "a", "rvrt_tiny"]) == 0
    out, err = capsys.readouterr()
    truth = load_folders(BUNDLED)[CLIP]
    restored = bicubic_down(truth, 4).repeat(4, axis=1).repeat(4, axis=2)
    pairs = zip(restored, truth, strict=True)
    psnr = np.mean([metrics.frame_scores(*pair)["psnr_rgb"] for pair in pairs])
    scores = json.loads((output / "scores.json").read_text())
    assert list(scores["versions"]) == ["bicubic", "a", "RVRT, small"]
    assert scores["versions"]["a"]["psnr_rgb"] == pytest.approx(psnr)
    assert f"\na            {psnr:.2f}  " in out
    assert "basicvsr_reds4 cannot be had" in err
    assert list(scores["left_out"]) == ["BasicVSR"]
    with open_frames(output / "restored.mp4") as video:
        frames = video.read_all()
    assert frames.shape == truth.shape
    assert metrics.psnr(frames[0], restored[0]) > 35  # but for H.264
    panels = 4  # and the ground truth
    picture = cv2.imread(str(output / "comparison.png"))
    assert picture.shape[1] == panels * 320 + (panels - 1) * 6


def test_mistakes(weights, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    for options, message in (
        (["--clip", "nobody"], "there is no clip 'nobody'; choose from city_night, "),
        (["--weights", "b"], "b holds no model for x4 super-resolution"),
        (["--output", str(tmp_path / "taken")], "taken exists"),
    ):
        assert demo.main(["--output", str(tmp_path / "out"), *options]) != 0
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
