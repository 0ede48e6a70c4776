"""train.py as a user starts it, and the recipes."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rvrt_jax import models
from rvrt_jax.data.options import DataOptions

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")


def _train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def _recipe(name: str, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["rvrt_tiny", "--config.stepz=4"], ["no key 'stepz'", '"steps"']),
        (["rvrt_tiny", "--config.steps=many"], ["--config.steps=many"]),
        (
            ["rvrt_tiny", "--config.data.root=nowhere"],
            ["nowhere holds no prepared", "python -m rvrt_jax.data.prepare real --output nowhere"],
        ),
        (
            ["rvrt_sr"],
            [
                "data/reds holds no prepared REDS",
                "https://",
                "train_sharp.zip",
                "train_sharp/<clip>/<frame>",
                "python -m rvrt_jax.data.prepare reds --source downloads/reds --output data",
                "train: 266 clips with 26600 frames, without 000, 011, 015, 020",
            ],
        ),
        (["basicvsr"], ["data/reds holds no prepared REDS"]),
        (["edvr_m"], ["must be trained ones", "--config.init_from=PATH"]),
        (["edvr_m:a", "--config.data.num_frames=4"], ["samples of 4 frames", "windows of 5"]),
        (["edvr_m:a", "--config.backward_frames=2"], ["backward_frames=2 has no effect"]),
        (["rvrt_finetune"], ["data/own does not exist"]),
        (["rvrt_finetune:deblurr"], ["no task 'deblurr'; choose from sr, deblur, denoise"]),
        (["rvrt_finetune:deblur"], ["name the degraded frames in lq_root"]),
        (
            ["rvrt_tiny", "--config.data.num_frames=7"],
            ["config.data.num_frames=7 gives samples of 7 frames", "multiples of 2"],
        ),
        (
            ["rvrt_tiny", "--config.data.scale=1", "--config.data.degradation=noise"],
            ["config.data.scale=1, but the network's is 4"],
        ),
        (["rvrt_tony"], ["there is no recipe", "rvrt_tony.py; there are basicvsr", "rvrt_tiny"]),
    ],
    ids=lambda value: (
        " ".join(value) if (ROOT / f"configs/{value[0].split(':')[0]}.py").is_file() else ""
    ),
)
def test_a_mistake_ends_in_one_message(tmp_path, arguments, messages):
    config, *rest = arguments
    name, *task = config.split(":")
    path = ":".join([str(ROOT / "configs" / f"{name}.py"), *task])
    result = _train("--config", path, *rest, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in result.stderr
    assert not list(tmp_path.iterdir())  # nothing was written


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_a_buildable_model_and_its_command(name, monkeypatch):
    config = _recipe(name, monkeypatch)
    fields = config.model.to_dict()
    network = models.build(fields.pop("name"), **fields)
    assert network.scale == config.data.scale
    header = importlib.import_module(f"configs.{name}").__doc__
    assert f"python train.py --config configs/{name}.py" in header


# Read off the options of the public training code.
PUBLISHED = {  # frames, batch, steps, peak rate, SpyNet frozen for, channels
    "rvrt_sr": (30, 8, 600_000, 4e-4, 30_000, 144),
    "rvrt_sr_vimeo_bi": (7, 8, 300_000, 2e-4, 0, 144),
    "rvrt_sr_vimeo_bd": (7, 8, 300_000, 2e-4, 0, 144),
    "rvrt_deblur_dvd": (16, 8, 600_000, 4e-4, 30_000, 192),
    "rvrt_deblur_gopro": (16, 8, 600_000, 4e-4, 30_000, 192),
    "rvrt_denoise": (16, 8, 600_000, 4e-4, 30_000, 192),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_carry_the_published_numbers(name, monkeypatch):
    config = _recipe(name, monkeypatch)
    found = (
        config.data.num_frames,
        config.batch_size,
        config.steps,
        config.lr,
        config.flow_freeze_steps,
        config.model.embed_dims[0],
    )
    assert found == PUBLISHED[name]
    assert (config.lr_floor, config.flow_lr_multiplier) == (1e-7, 0.25)
    assert (config.clip_norm, config.ema_decay, config.warmup_steps) == (0, 0, 0)
    assert (config.data.gt_size, config.model.window_size) == (256, (2, 8, 8))


INPUTS = {  # set, how LQ comes about, scale, frames the network sees, reversal, validation
    "rvrt_sr": ("reds", "bicubic", 4, 30, 0.0, "held_out"),
    "rvrt_sr_vimeo_bi": ("vimeo", "bicubic", 4, 14, 0.5, "held_out"),
    "rvrt_sr_vimeo_bd": ("vimeo", "blur_down", 4, 14, 0.5, "held_out"),
    "rvrt_deblur_dvd": ("dvd", "given", 1, 16, 0.0, "held_out"),
    "rvrt_deblur_gopro": ("gopro", "given", 1, 16, 0.0, "held_out"),
    "rvrt_denoise": ("davis", "noise", 1, 16, 0.0, "held_out"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_published_recipes_take_the_published_input(name, monkeypatch):
    data = DataOptions.read(_recipe(name, monkeypatch).data.to_dict())
    found = (data.dataset, data.degradation, data.scale, data.sample_frames, data.reverse_fraction)
    assert (*found, data.validation_dataset) == INPUTS[name]
    assert data.sigma == (0, 50) and data.exclude == ()
    # Crops as filmed, nothing but the published augmentation.
    assert (data.photo_fraction, data.camera_fraction, data.tries) == (0, 0, 1)
    assert (data.gt_size, data.root) == (256, "data")


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_headers_say_what_a_reader_needs(name, monkeypatch):
    _recipe(name, monkeypatch)
    header = importlib.import_module(f"configs.{name}").__doc__
    for word in ("Data:", "Traps", "Hardware:", "Expected result:", "(paper, table", "Train: "):
        assert word in header
    dataset = INPUTS[name][0]
    assert f"rvrt_jax.data.prepare {dataset} --source" in header
