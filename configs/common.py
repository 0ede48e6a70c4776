"""What the recipes share: whole recipes from a network, its data, and what differs."""

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rvrt_jax import models
from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError
from rvrt_jax.training.settings import Settings

# EDVR's stages: steps from one restart of the learning rate to the next.
STAGES = {
    "a": (150_000,) * 4,
    "b": (50_000, 100_000, 150_000, 150_000, 150_000),
}


def recipe(
    network: ConfigDict,
    data: ConfigDict,
    *,
    test_sets: tuple[str, ...] = (),
    published: str = "RVRT",
    **settings: Any,
) -> ConfigDict:
    """Returns a whole recipe: every setting of a run that the network has a use for.

    settings: in place of the defaults of `Settings`, which are those of the published RVRT recipes.
    test_sets: of evaluation/test_sets.py, which eval.py runs. published: the method whose published
    numbers it prints beside.
    """
    groups = models.build(**network.to_dict()).parameter_groups()
    options = Settings(**settings).options(groups)
    options["init_from"] = options["init_from"] or placeholder(str)
    evaluation = {"test_sets": test_sets, "published": published}
    return ConfigDict(options | evaluation | {"model": network, "data": data})


def model(name: str, **fields: Any) -> ConfigDict:
    """Returns every field of a model or published size, with `fields` in place of its own."""
    network = models.build(name, **fields)
    values = models.fields(network)
    return ConfigDict({"name": name, **values, "dtype": np.dtype(network.dtype).name})


def as_published(dataset: str, **options: Any) -> ConfigDict:
    """Returns the input options of a published recipe: crops of the set's own clips, as filmed.

    Validation takes the middle of a few training clips that are held out, so that what is chosen by
    it has not seen the test clips; published figures are those of eval.py. The papers trained on
    these clips too.
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
        "validation_dataset": "held_out",
        "validation_clips": 4,
        "validation_frames": 16,
        "validation_size": 256,
    }
    return data(**(defaults | options))


def on_reds(**options: Any) -> ConfigDict:
    """Returns the input options for REDS, with REDSval4 held out.

    These are the clips 000, 001, 006 and 017 of its validation part, counted on as 240 to 257: the
    validation set of the paper of BasicVSR.
    """
    return as_published("reds", validation_names=("240", "241", "246", "257"), **options)


def edvr(stage: str, network: ConfigDict, data: ConfigDict, **settings: Any) -> ConfigDict:
    """Returns a recipe with the published settings of EDVR's training, as BasicSR has them.

    stage: "a", of a network without TSA, or "b", which goes on with TSA from the weights of a,
    first with nothing but the fusion learning. The large network halves the peaks after the first.
    """
    if stage not in STAGES:
        raise UserError(f"the stage is {stage!r}; give a (without TSA) or b (with TSA, from a).")
    large = network.num_feat == 128
    periods = STAGES[stage]
    defaults = {
        "batch_size": 32,
        "lr_periods": periods,
        "lr_weights": (1.0, *[0.5 if large else 1.0] * (len(periods) - 1)),
        "ema_decay": 0.999,
        "loss_eps": 1e-12,
        "loss_reduction": "sum",
        "published": "EDVR-L" if large else "EDVR-M",
    }
    if stage == "b":  # all of it learns from iteration 50 000 on
        defaults |= {"init_partial": True, "tsa_only_steps": 49_999}
    return recipe(network, data, **defaults | settings)


def edvr_on_reds(size: str, stage: str, **fields: Any) -> ConfigDict:
    """Returns the recipe of a size of EDVR, "edvr_m" or "edvr_l", for REDS with bicubic LR."""
    network = model(size if stage == "b" else f"{size}_wotsa", **fields)
    data = on_reds(num_frames=5)
    return edvr(stage, network, data, test_sets=("reds4",))


def edvr_on_blurred_reds(size: str, stage: str, folder: str, *, scale: int) -> ConfigDict:
    """Returns the recipe of an EDVR-L with PreDeblur for the frames in a folder of REDS."""
    network = model(size, with_tsa=stage == "b", remat=True)
    # Of PreDeblur's network one part fits, of stage a's all but the fusion.
    return edvr(stage, network, reds_pairs(folder, num_frames=5, scale=scale), init_partial=True)


def small(network: ConfigDict, data: ConfigDict, **settings: Any) -> ConfigDict:
    """Returns the recipe of a small network that a CPU trains on real clips, ours."""
    defaults = {
        "lr": 1e-3,
        "warmup_steps": 50,
        "clip_norm": 1.0,
        "ema_decay": 0.99,
        "log_every": 50,
        "eval_every": 500,
        "save_every": 250,
        "test_sets": ("bundled",),
    }
    return recipe(network, data, **defaults | settings)


def small_rvrt(*, width: int = 48, window: int = 4, heads: int = 4, **fields: Any) -> ConfigDict:
    """Returns a small RVRT, ours: half the blocks, and windows of a quarter of the area."""
    defaults = {
        "embed_dims": (width,) * 3,
        "window_size": (2, window, window),
        "num_blocks": (1, 1, 1),
        "depths": (2, 2, 2),
        "num_heads": (heads,) * 3,
        "deformable_groups": 4,
        "attention_heads": 4,
        "num_feat": 2 * width // 3,
        "offset_feat": 2 * width // 3,
    }
    return model("rvrt", **defaults | fields)


def small_same_size(network: ConfigDict, data: ConfigDict, **settings: Any) -> ConfigDict:
    """Returns the recipe of a small RVRT that keeps the frames' size, ours.

    It starts as the identity, with features that carry the pixels: see `training.identity`. The
    flow network keeps its weights.
    """
    defaults = {
        "batch_size": 1,
        "flow_freeze_steps": settings["steps"],
        "identity_start": True,
        "ema_decay": 0.995,
        "lr": 2e-4,
        "eval_every": 250,
        "test_sets": (),
    }
    return small(network, data, **defaults | settings)


def held_out(**options: Any) -> ConfigDict:
    """Returns the input options of small networks that are chosen on held-out training clips."""
    defaults = {
        "root": "data/real",
        "validation_dataset": "held_out",
        "validation_names": ("carphone", "gym_single_4"),
        "validation_frames": 8,
        "validation_size": 128,
    }
    return data(**(defaults | options))


def reds_pairs(folder: str, *, scale: int, **options: Any) -> ConfigDict:
    """Returns the input options for REDS' clips and those of a folder, REDS4's left out."""
    return as_published(
        "own",
        root="data/REDS/train_sharp",
        lq_root=f"data/REDS/{folder}",
        scale=scale,
        degradation="given",
        exclude=("000", "011", "015", "020"),
        **options,
    )


def rvrt_on_vimeo(degradation: str, *, test_sets: tuple[str, ...]) -> ConfigDict:
    """Returns the recipe that fine-tunes RVRT on Vimeo-90K, whichever way its LR comes about."""
    data = as_published(
        "vimeo",
        num_frames=7,
        mirror=True,
        degradation=degradation,
        reverse_fraction=0.5,
        validation_clips=20,
        validation_frames=7,
    )
    return recipe(
        model("rvrt_sr", remat=True),
        data,
        init_from="rvrt_sr_reds",
        steps=300_000,
        lr=2e-4,
        flow_freeze_steps=0,
        test_sets=test_sets,
    )


def data(**options: Any) -> ConfigDict:
    """Returns every option of the input pipeline, with `options` in place of the defaults."""
    return ConfigDict(dataclasses.asdict(DataOptions(**options)))
