"""A small network and a small input pipeline that stand in for the real ones in training tests.

Run as a program, `python standin.py WORKDIR CONFIG.json [KILL_AT]`, it trains, and with KILL_AT
kills itself without notice right after that step.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import grain
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parent.parent))

from rvrt_jax import loading, logs, models, training  # noqa: E402
from rvrt_jax.data import pipeline  # noqa: E402


class Flow(nn.Module):
    """Stands in for SpyNet: a part of its own, with a learnable kernel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(2, (3, 3), name="conv")(x)


class Net(nn.Module):
    """x4 super-resolution with three convolutions. [b, t, h, w, 3] -> [b, t, 4h, 4w, 3]."""

    width: int = 8
    scale = 4
    time_multiple = 1
    size_multiple = 1
    in_channels = 3

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        flow = Flow(name="spynet")(video)
        x = nn.Conv(self.width, (3, 3), name="conv_in")(jnp.concatenate([video, flow], -1))
        x = nn.Conv(48, (3, 3), name="conv_out")(nn.relu(x))
        x = rearrange(x, "b t h w (i j c) -> b t (h i) (w j) c", i=4, j=4)
        b, t, h, w, c = x.shape
        return x + jax.image.resize(video, (b, t, h, w, c), "bilinear")


class Noise(grain.transforms.Map):
    """Sample number `index`: smooth random frames, GT and every fourth pixel of it."""

    def __init__(self, seed: int):
        self.seed = seed

    def map(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        gt = rng.random((2, 4, 4, 3), np.float32).repeat(8, axis=1).repeat(8, axis=2)
        return {"lq": gt[:, ::4, ::4].copy(), "gt": gt}


def train(config, *, seed, batch_size, shard_index=0, shard_count=1) -> grain.IterDataset:
    del config
    dataset = grain.MapDataset.range(2**20)[shard_index::shard_count].map(Noise(seed))
    return dataset.batch(batch_size).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )


def validation(config) -> list[dict]:
    del config
    pairs = [Noise(99).map(index) for index in range(2)]
    to_uint8 = {k: (255 * pairs[0][k]).astype(np.uint8) for k in ("lq", "gt")}
    return [{"name": "noise", **to_uint8}]


def flow_params() -> dict:
    kernel = np.random.default_rng(5).normal(0, 0.2, (3, 3, 3, 2)).astype(np.float32)
    return {"conv": {"kernel": kernel, "bias": np.zeros(2, np.float32)}}


def config(**changes) -> Any:  # a ConfigDict
    """Returns the config of a run of 12 steps in which SpyNet thaws and everything is saved."""
    values = {
        "seed": 0,
        "init_from": None,
        "batch_size": 4,
        "accumulate": 1,
        "steps": 12,
        "lr": 1e-2,
        "lr_floor": 1e-7,
        "warmup_steps": 2,
        "flow_freeze_steps": 5,
        "flow_lr_multiplier": 0.25,
        "clip_norm": None,
        "ema_decay": 0.9,
        "max_skipped": 3,
        "log_every": 1,
        "eval_every": 6,
        "save_every": 3,
        "model": {"name": "standin", "width": 8},
        "data": {"root": "nowhere"},
    }
    return ConfigDict(values | changes)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Puts the stand-ins in place."""
    with (
        mock.patch.dict(models.MODELS, {"standin": Net}),
        mock.patch.object(pipeline, "train", train),
        mock.patch.object(pipeline, "validation", validation),
        mock.patch.object(loading, "spynet_params", flow_params),
    ):
        yield


@contextlib.contextmanager
def cached_programs(folder: Path) -> Iterator[dict[str, str]]:
    """Keeps compiled programs in a folder; yields the environment in which a child does so too."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield {
        "JAX_PLATFORMS": "cpu",
        "JAX_DEFAULT_MATMUL_PRECISION": "float32",  # as in conftest.py
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@contextlib.contextmanager
def signalled(number: signal.Signals, *, after: int) -> Iterator[None]:
    """Sends this process a signal when `after` steps have been read back."""
    steps = iter(range(1, after + 1))
    advance = logs.Logs.advance

    def signalling(self: logs.Logs, loss: float, psnr: float) -> None:
        advance(self, loss, psnr)
        if next(steps, None) == after:
            os.kill(os.getpid(), number)

    with mock.patch.object(logs.Logs, "advance", signalling):
        yield


def main() -> None:
    workdir, config_file, *kill_at = sys.argv[1:]
    values = ConfigDict(json.loads(Path(config_file).read_text()))
    with installed(), contextlib.ExitStack() as stack:
        if kill_at:
            stack.enter_context(signalled(signal.SIGKILL, after=int(kill_at[0])))
        training.run(values, workdir)


if __name__ == "__main__":
    main()
