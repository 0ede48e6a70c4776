"""Makes the runs beside it with the version of the package before its files moved (38c0472).

From a checkout of that commit, as it imports `rvrt_jax`, `configs` and the tests' stand-ins:
PYTHONPATH=.:tests python .../make.py. Each run is stopped after 4 of its 8 steps, kept, and
then goes on, so that what it became is known. EDVR's is the second stage of two, in which all
but the fusion learns from step 6 on. RVRT's flow network is zero and learns nothing: its 1.4
million parameters would be all of the file.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import tarfile
import tempfile
from pathlib import Path
from unittest import mock

import cv2
import jax
import numpy as np
import standin
from ml_collections import ConfigDict

from rvrt_jax import loading, training

HERE = Path(__file__).parent
EVERY = 5  # one in so many weights is kept


def draw_clips() -> None:
    rng = np.random.default_rng(0)
    for clip in ("garden", "street"):
        (HERE / "clips" / clip).mkdir(parents=True, exist_ok=True)
        for i in range(5):
            frame = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            cv2.imwrite(str(HERE / "clips" / clip / f"{i}.png"), frame)


def zero_flow() -> dict:
    return jax.tree.map(np.zeros_like, loading.spynet_params())


def train(name: str) -> None:
    config = recipe(name)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if name == "rvrt":
            zeros = zero_flow()
            stack.enter_context(mock.patch.object(loading, "spynet_params", lambda: zeros))
        run = Path(folder)
        with standin.signalled(signal.SIGTERM, after=4):
            training.run(config, run)
        with tarfile.open(HERE / f"{name}.tar.xz", "w:xz") as tar:
            for part in ("config.json", "checkpoints/4"):
                tar.add(run / part, part, filter=without_owner)
        training.run(config, run)
        _, params = loading.load(run, step=8)
        params.pop("spynet", None)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        weights = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        np.savez_compressed(HERE / f"{name}_step_8.npz", losses=losses, weights=weights[::EVERY])


def recipe(name: str, **changes) -> ConfigDict:
    config = importlib.import_module(f"configs.{name}_tiny").get_config()
    config.update(json.loads((HERE / f"{name}.json").read_text()))
    config.update(changes)
    return config


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    return member.replace(uid=0, gid=0, uname="", gname="", deep=False)


jax.config.update("jax_default_matmul_precision", "float32")
os.chdir(HERE)  # the runs name their clips by a path from here
draw_clips()
stage_a = recipe("edvr", steps=2, init_from=None, tsa_only_steps=0, init_partial=False)
stage_a.model.with_tsa = False
training.run(stage_a, "stage_a")
train("edvr")
shutil.rmtree("stage_a")
train("rvrt")
