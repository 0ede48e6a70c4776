"""What the recipes share: the published optimizer settings, and how a run reports."""

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rvrt_jax import models
from rvrt_jax.data.options import Options
from rvrt_jax.errors import UserError


def training() -> ConfigDict:
    """Returns the settings common to the published RVRT recipes."""
    return ConfigDict(
        {
            "seed": 0,
            "init_from": placeholder(str),  # weights to start from: a file or a known name
            "init_partial": False,  # take what fits of init_from instead of insisting on all
            "zero_output": False,  # RVRT starts with no correction of its input at all
            "batch_size": 8,  # over all devices and hosts
            "accumulate": 1,  # parts in which a device takes its share of the batch
            "steps": 600_000,
            "lr": 4e-4,
            "lr_floor": 1e-7,
            "warmup_steps": 0,
            "flow_freeze_steps": 30_000,  # SpyNet keeps its weights that long, ...
            "flow_lr_multiplier": 0.25,  # ... then learns at this fraction of the rate
            "lr_periods": (),  # steps between restarts of the cosine, ...
            "lr_weights": (),  # ... and the peaks, as fractions of lr; one cosine if empty
            "tsa_only_steps": 0,  # EDVR: only the fusion learns that long
            "dcn_lr_multiplier": 1.0,  # EDVR: of its deformable convolutions and their offsets
            "loss_eps": 1e-9,
            "loss_reduction": "mean",
            "clip_norm": 0.0,  # of the gradient; 0: no limit
            "ema_decay": 0.0,  # of the average of the weights; 0: none is kept
            "max_skipped": 10,  # non-finite steps in a row that end the run
            "log_every": 200,
            "eval_every": 5_000,
            "save_every": 5_000,
            "test_sets": (),  # of rvrt_jax/testsets.py, which eval.py runs, ...
            "published": "RVRT",  # ... and whose published numbers it prints beside
        }
    )


def model(name: str, **fields: Any) -> ConfigDict:
    """Returns every field of a model or published size, with `fields` in place of its own."""
    network = models.build(name, **fields)
    values = {
        field.name: getattr(network, field.name)
        for field in dataclasses.fields(network)
        if field.name not in ("parent", "name")
    }
    return ConfigDict({"name": name, **values, "dtype": np.dtype(network.dtype).name})


def as_published(dataset: str, **options: Any) -> ConfigDict:
    """Returns the input options of a published recipe: crops of the set's own clips, as filmed.

    Validation takes the middle of a few test clips, so that it is quick and needs no more memory
    than training does; published figures are those of eval.py.
    """
    defaults = {
        "dataset": dataset,
        "root": "data",
        "gt_size": 256,
        "photo_fraction": 0.0,
        "camera_fraction": 0.0,
        "tries": 1,
        "reverse_fraction": 0.0,
        "num_workers": 8,
        "validation_clips": 4,
        "validation_frames": 16,
        "validation_size": 256,
    }
    return data(**(defaults | options))


def edvr(stage: str, *, large: bool, initial: str | None = None) -> ConfigDict:
    """Returns the published settings of EDVR's training, as BasicSR has them.

    stage: "a", of a network without TSA, or "b", which goes on with TSA from the weights of a,
    first with nothing but the fusion learning. large: halves the peaks after the first.
    """
    later = 0.5 if large else 1.0
    config = training()
    config.update(
        {
            "init_from": initial,
            "init_partial": stage == "b",
            "batch_size": 32,
            "lr_periods": (150_000,) * 4,
            "lr_weights": (1.0, later, later, later),
            "ema_decay": 0.999,
            "loss_eps": 1e-12,
            "loss_reduction": "sum",
            "published": "EDVR-L" if large else "EDVR-M",
        }
    )
    if stage == "b":
        config.lr_periods = (50_000, 100_000, 150_000, 150_000, 150_000)
        config.lr_weights = (1.0, later, later, later, later)
        config.tsa_only_steps = 49_999  # all of it learns from iteration 50 000 on
    elif stage != "a":
        raise UserError(f"the stage is {stage!r}; give a (without TSA) or b (with TSA, from a).")
    return config


def small(*, batch_size: int, steps: int) -> ConfigDict:
    """Returns the settings of small networks that a CPU trains on real clips, ours."""
    config = training()
    config.update(
        {
            "batch_size": batch_size,
            "steps": steps,
            "lr": 1e-3,
            "warmup_steps": 50,
            "clip_norm": 1.0,
            "ema_decay": 0.99,
            "log_every": 50,
            "eval_every": 500,
            "save_every": 250,
            "test_sets": ("bundled",),
        }
    )
    return config


def small_upscale_1(*, steps: int) -> ConfigDict:
    """Returns the settings and the network of small RVRTs that keep the frames' size, ours."""
    config = small(batch_size=1, steps=steps)
    config.flow_freeze_steps = steps
    config.eval_every = 250
    # The input is nearly right. A random correction is unlearned within ten steps, whose gradients
    # may be what kept a first run from learning: see docs/training_small.md.
    config.zero_output = True
    config.clip_norm = 0.01
    config.test_sets = ()
    config.model = model(
        "rvrt",
        upscale=1,
        window_size=(2, 4, 4),
        embed_dims=(48, 48, 48),
        num_blocks=(1, 1, 1),
        depths=(2, 2, 2),
        num_heads=(4, 4, 4),
        deformable_groups=4,
        attention_heads=4,
        num_feat=24,
        offset_feat=24,
    )
    return config


def small_held_out(**options: Any) -> ConfigDict:
    """Returns the input options of small networks that are chosen on held-out training clips."""
    defaults = {
        "root": "data/real",
        "validation_dataset": "real",
        "validation_root": "data/real",
        "validation_names": ("carphone", "gym_single_4"),
        "validation_frames": 8,
        "validation_size": 128,
    }
    return data(**(defaults | options))


def own_pairs(gt: str, lq: str, *, scale: int, **options: Any) -> ConfigDict:
    """Returns the input options for pairs of clips in plain folders, REDS4's clips left out."""
    return as_published(
        "own",
        root=gt,
        lq_root=lq,
        scale=scale,
        degradation="given",
        exclude=("000", "011", "015", "020"),
        validation_dataset="none",
        **options,
    )


def fine_tuned_on_vimeo(degradation: str, *, test_sets: tuple[str, ...]) -> ConfigDict:
    """Returns what the two Vimeo-90K recipes, which differ in their LR alone, share."""
    config = training()
    config.init_from = "rvrt_sr_reds"
    config.steps = 300_000
    config.lr = 2e-4
    config.flow_freeze_steps = 0
    config.test_sets = test_sets
    config.model = model("rvrt_sr", remat=True)
    config.data = as_published(
        "vimeo",
        num_frames=7,
        mirror=True,
        degradation=degradation,
        reverse_fraction=0.5,
        validation_dataset="vimeo",
        validation_clips=20,
        validation_frames=7,
    )
    return config


def data(**options: Any) -> ConfigDict:
    """Returns every option of the input pipeline, with `options` in place of the defaults."""
    return ConfigDict(dataclasses.asdict(Options(**options)))
