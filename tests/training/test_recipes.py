"""Every recipe trains on made-up downloads; at full size where slow tests are asked for."""

import importlib
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers import archives, toy

from rvrt_jax import models
from rvrt_jax.data.prepare import tfds_builder
from rvrt_jax.media import images
from rvrt_jax.training import checks, state
from rvrt_jax.training import loop as training
from rvrt_jax.training.settings import GROUP_OPTIONS, Settings

ROOT = Path(__file__).parents[2]
RECIPES = {  # and the sets they need
    "rvrt_sr": ("reds", "reds4"),
    "rvrt_sr_vimeo_bi": ("vimeo",),
    "rvrt_sr_vimeo_bd": ("vimeo",),
    "rvrt_deblur_dvd": ("dvd", "dvd10"),
    "rvrt_deblur_gopro": ("gopro", "gopro11"),
    "rvrt_denoise": ("davis",),
    "basicvsr": ("reds", "reds4"),
    "edvr_m:a": ("reds", "reds4"),
    "edvr_l:a": ("reds", "reds4"),
    "edvr_l_vimeo:a": ("vimeo",),
}


PAIRS = {  # recipes that read plain folders: the folder of degraded frames, and the scale
    "edvr_deblur:a": ("train_blur", 1),
    "edvr_deblurcomp:a": ("train_blur_comp", 1),
    "edvr_srblur:a": ("train_blur_bicubic/X4", 4),
    "edvr_stage2:deblur": ("stage1_deblur", 1),
    "edvr_stage2:sr": ("stage1_sr", 1),
    "edvr_predeblur:deblur": ("train_blur", 1),
    "edvr_predeblur:srblur": ("train_blur_bicubic/X4", 4),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All training sets and the test sets that recipes validate on, small, prepared."""
    root = tmp_path_factory.mktemp("recipes")
    with pytest.MonkeyPatch.context() as patch:
        archives.small_counts(patch)
        for name in sorted({name for names in RECIPES.values() for name in names}):
            folder = root / "downloads" / archives.DOWNLOADS[name].__name__
            if not folder.exists():
                archives.unpack(archives.DOWNLOADS[name](), folder)
            tfds_builder.prepare(name, folder, root / "data")
    return root / "data"


def recipe(name, monkeypatch, data):
    """Returns a recipe that takes two steps of two clips of a few frames of 32 pixels."""
    monkeypatch.syspath_prepend(str(ROOT))
    name, *argument = name.split(":")
    config = importlib.import_module(f"configs.{name}").get_config(*argument)
    config.update({"batch_size": 2, "steps": 2, "log_every": 1, "eval_every": 2, "init_from": None})
    if config.lr_periods:
        config.update({"lr_periods": (2,), "lr_weights": (1.0,)})
    own = config.data.dataset == "own"
    config.data.update(
        {
            "root": config.data.root if own else str(data),
            "num_frames": 7 if config.data.mirror else 2,
            "gt_size": 32,
            "num_workers": 0,
            "prefetch": 1,
            "validation_clips": 1,
            "validation_frames": min(config.data.validation_frames, 7) if "vimeo" in name else 2,
            "validation_size": 32,
        }
    )
    config.data.validation_names = ()  # of the real sets
    return config


def with_toy(config):
    """Puts a network of one parameter into a recipe."""
    fields = {
        "scale": config.data.scale,
        "takes_noise_level": config.data.degradation == "noise",
    }
    with config.unlocked():
        config.model = {"name": "toy", **fields}
        for key in [key for keys in GROUP_OPTIONS.values() for key in keys if key in config]:
            del config[key]  # the toy has no such groups
    return config


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], lines


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_on_prepared_data(name, data, tmp_path, monkeypatch):
    config = with_toy(recipe(name, monkeypatch, data))
    with mock.patch.dict(models.MODELS, {"toy": toy.Toy}):
        training.run(config, tmp_path)
    found, lines = losses(tmp_path)
    assert len(found) == 2 and np.all(np.isfinite(found))
    scores = next(line["validation"] for line in lines if "validation" in line)
    assert 5 < scores["psnr_rgb"] < 60


def plain_pairs(name, folder):
    """Writes two clips of five frames below `folder`, laid out as REDS is."""
    degraded, scale = PAIRS[name]
    rng = np.random.default_rng(0)
    for where, side in (("train_sharp", 64), (degraded, 64 // scale)):
        for clip in ("001", "002"):
            path = folder / "data/REDS" / where / clip
            path.mkdir(parents=True)
            for k in range(5):
                frame = rng.integers(0, 256, (side, side, 3), np.uint8)
                (path / f"{k:08d}.png").write_bytes(images.encode_png(frame))


@pytest.mark.parametrize("name", PAIRS)
def test_every_recipe_of_plain_pairs_runs(name, tmp_path, monkeypatch):
    plain_pairs(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    config = with_toy(recipe(name, monkeypatch, tmp_path))
    with mock.patch.dict(models.MODELS, {"toy": toy.Toy}):
        training.run(config, tmp_path / "run")
    found, lines = losses(tmp_path / "run")
    assert len(found) == 2 and np.all(np.isfinite(found))
    (scores,) = [line["clips"] for line in lines if "validation" in line]
    assert list(scores) == ["001"]  # which is held out of training


@pytest.mark.parametrize("task", ["sr", "deblur", "denoise"])
def test_own_clips_fine_tune(task, tmp_path, monkeypatch):
    files = archives.test_set("own", ["x", "y"], copies=("GT", "blurred"))
    root = archives.unpack(files, tmp_path / "clips") / "own"
    config = with_toy(recipe(f"rvrt_finetune:{task}", monkeypatch, tmp_path))
    config.data.root = str(root / "GT")
    if task == "deblur":
        config.data.lq_root = str(root / "blurred")
        config.data.validation_lq_root = str(root / "blurred")
        config.data.validation_dataset, config.data.validation_root = "own", str(root / "GT")
    with mock.patch.dict(models.MODELS, {"toy": toy.Toy}):
        training.run(config, tmp_path / "run")
    found, lines = losses(tmp_path / "run")
    assert len(found) == 2 and np.all(np.isfinite(found))
    assert any("validation" in line for line in lines) == (task == "deblur")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_at_full_size(name, data, tmp_path, monkeypatch):
    """The published network in every detail; only crops and clips are small."""
    config = recipe(name, monkeypatch, data)
    config.batch_size = 1
    if name in ("edvr_m:a", "edvr_l:a"):
        config.data.dataset = "vimeo"  # whose made-up clips are long enough
    config.data.num_frames = config.model.get("num_frame") or (7 if config.data.mirror else 2)
    config.data.validation_dataset = "none"
    training.run(config, tmp_path)
    found, _ = losses(tmp_path)
    assert len(found) == 2 and np.all(np.isfinite(found))
    assert list((tmp_path / "checkpoints").glob("2"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_every_recipe_of_plain_pairs_runs_at_full_size(name, tmp_path, monkeypatch):
    plain_pairs(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    config = recipe(name, monkeypatch, tmp_path)
    config.batch_size = 1
    config.data.num_frames = config.model.get("num_frame") or 1
    config.data.validation_dataset = "none"
    training.run(config, tmp_path / "run")
    found, _ = losses(tmp_path / "run")
    assert len(found) == 2 and np.all(np.isfinite(found))
    assert list((tmp_path / "run/checkpoints").glob("2"))


def test_weights_that_a_start_needs_are_known_before_it():
    first = {"name": "rvrt", "denoise_first": True}
    for options, network, expected in (
        ({}, {"name": "rvrt"}, []),
        ({}, first, ["ffdnet_color"]),
        ({"init_from": "run"}, first, ["run"]),
        ({"init_from": "run", "init_partial": True}, first, ["run", "ffdnet_color"]),
    ):
        assert state.starts_from(Settings(**options), network) == expected


@pytest.mark.parametrize(
    "name",
    [
        "rvrt_small",
        "rvrt_small:longer",
        "rvrt_small:gpu",
        "rvrt_denoise_small",
        "rvrt_deblur_small",
    ],
)
def test_small_recipes_fit_their_networks_and_hold_clips_out(name, monkeypatch):
    """They train on downloads of hundreds of megabytes, so here only what is checked before."""
    monkeypatch.syspath_prepend(str(ROOT))
    name, *argument = name.split(":")
    config = importlib.import_module(f"configs.{name}").get_config(*argument)
    recipe = training.read(config)
    checks.check_input(recipe.data, recipe.model)
    assert config.data.validation_dataset == "held_out"
    assert not {"city_night", "cup_hand", "dog_phone"} & set(config.data.validation_names)
