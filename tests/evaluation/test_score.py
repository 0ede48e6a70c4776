"""Scores by name, against each metric computed on its own."""

import numpy as np
import pytest
from helpers import goldens
from safetensors.numpy import save_file

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import metrics, score
from rvrt_jax.evaluation.lpips import lpips
from rvrt_jax.evaluation.warping_error import warping_error
from rvrt_jax.weights import load as loading
from rvrt_jax.weights import lpips as weights
from rvrt_jax.weights import mapping


def video(seed, frames=3, h=33, w=36):
    return np.random.default_rng(seed).integers(0, 256, (frames, h, w, 3)).astype(np.uint8)


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Made-up weights of LPIPS, where fetched ones would be."""
    shapes = weights.shapes("alex")
    empty = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    state = mapping.to_state(weights.TABLE, empty)
    state = {key: np.abs(goldens.fill(key, array.shape, 0)) for key, array in state.items()}
    save_file(state, tmp_path / "alex.safetensors")
    monkeypatch.setattr(score.catalogue, "find", lambda name: (tmp_path / "alex.safetensors", None))
    return state


def test_each_score_is_that_of_its_metric(state):
    names = score.NAMES
    clip = score.ClipScores(names, score.networks(names))
    restored, truth = video(0), video(1)
    found = [clip.add(*pair).scores for pair in zip(restored, truth, strict=True)]
    params, spynet = weights.to_params("alex", state), loading.spynet_params()
    for i, scores in enumerate(found):
        pair = np.stack([restored[i], truth[i]]).astype(np.float32) / 255
        expected = metrics.frame_scores(restored[i], truth[i])
        expected |= {"lpips": float(lpips(params, *pair))}
        if i:
            before = np.stack([restored[i - 1], truth[i - 1]]).astype(np.float32) / 255
            errors = warping_error(spynet, *np.stack([before, pair], axis=1))
            expected |= {"warping": float(errors[0]), "warping_true": float(errors[1])}
        assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "names, keys", [(("psnr",), {"psnr_rgb", "psnr_y"}), (("lpips",), {"lpips"})]
)
def test_only_what_was_asked_for_is_there(state, names, keys):
    clip = score.ClipScores(names, score.networks(names))
    assert set(clip.add(video(0)[0], video(1)[0]).scores) == keys


@pytest.mark.parametrize("names", [("psnr", "vmaf"), (), ("ssim", "ssim")])
def test_other_names_are_refused(names):
    with pytest.raises(UserError, match="choose some of psnr,ssim,lpips,warp"):
        score.networks(names)


def test_weights_that_are_not_there_are_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="weights get lpips_alex"):
        score.networks(("lpips",))
