"""A small network and a small input pipeline that stand in for the real ones in training tests.

`run_and_die` is for a process of its own, which it kills without notice.
"""

import contextlib
import fnmatch
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from helpers import noise
from helpers.noise import Noise
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from rvrt_jax import models
from rvrt_jax.data import pipeline
from rvrt_jax.models import memory
from rvrt_jax.models.contract import ParameterGroup, Size
from rvrt_jax.training import logs
from rvrt_jax.training import loop as training
from rvrt_jax.training.stop import ONCE
from rvrt_jax.weights import load as loading

CLIPS = 1  # to validate on


class Flow(nn.Module):
    """Stands in for SpyNet: a part of its own, with a learnable kernel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(2, (3, 3), name="conv")(x)


class Net(nn.Module):
    """x4 super-resolution with three convolutions. [b, t, h, w, 3] -> [b, t, 4h, 4w, 3]."""

    width: int = 8
    dtype: Any = jnp.float32
    scale = 4
    time_multiple = 1
    size_multiple = 1
    pad_multiple = 1
    window = None
    centre = 0
    border = None
    takes_noise_level = False
    compute_fields = ("dtype",)

    @nn.nowrap
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        return (ParameterGroup("flow", "spynet"),)

    @nn.nowrap
    def working_memory(self, call: Size) -> int:
        return memory.of_clip(self, call, self.width)

    @nn.nowrap
    def example_size(self) -> Size:
        return 1, 1, 1

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        flow = Flow(name="spynet")(video)
        self.sow("intermediates", "flows_forward", flow)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = conv(self.width, name="conv_in")(jnp.concatenate([video, flow], -1))
        x = conv(48, name="conv_out")(nn.relu(x)).astype(jnp.float32)
        x = rearrange(x, "b t h w (i j c) -> b t (h i) (w j) c", i=4, j=4)
        b, t, h, w, c = x.shape
        return x + jax.image.resize(video, (b, t, h, w, c), "bilinear")


def validation(config) -> list[dict]:
    del config
    pair = Noise(99).map(0)
    to_uint8 = {k: (255 * pair[k]).astype(np.uint8) for k in ("lq", "gt")}
    return CLIPS * [{"name": "noise", **to_uint8}]


def flow_params() -> dict:
    kernel = np.random.default_rng(5).normal(0, 0.2, (3, 3, 3, 2)).astype(np.float32)
    return {"conv": {"kernel": kernel, "bias": np.zeros(2, np.float32)}}


def config(**changes) -> Any:  # a ConfigDict
    """Returns the config of a run of 12 steps in which SpyNet thaws and everything is saved."""
    values = {
        "batch_size": 4,
        "steps": 12,
        "lr": 1e-2,
        "warmup_steps": 2,
        "flow_freeze_steps": 5,
        "ema_decay": 0.9,
        "max_skipped": 3,
        "log_every": 1,
        "eval_every": 6,
        "save_every": 3,
        "model": {"name": "standin", "width": 8},
        "data": {"root": "nowhere"},
    }
    values |= changes
    if values["model"]["name"] != "standin":
        values.pop("flow_freeze_steps")  # has no effect on others
    return ConfigDict(values)


@contextlib.contextmanager
def installed(*, data: bool = True) -> Iterator[None]:
    """Puts the stand-ins in place. data: the input pipeline's too, else the real one stays."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(models.MODELS, {"standin": Net}))
        stack.enter_context(mock.patch.object(loading, "spynet_params", flow_params))
        if data:
            stack.enter_context(mock.patch.object(pipeline, "train", noise.train))
            stack.enter_context(mock.patch.object(pipeline, "validation", validation))
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
def after_step(number: int, action: Callable[[], Any]) -> Iterator[None]:
    """Calls `action` when so many steps of this process have been read back."""
    steps = iter(range(1, number + 1))
    advance = logs.Logs.advance

    def acting(self: logs.Logs, loss: float, psnr: float) -> None:
        advance(self, loss, psnr)
        if next(steps, None) == number:
            action()

    with mock.patch.object(logs.Logs, "advance", acting):
        yield


def signalled(number: signal.Signals, *, after: int) -> contextlib.AbstractContextManager:
    """Sends this process a signal when `after` steps have been read back."""
    return after_step(after, lambda: os.kill(os.getpid(), number))


_RULES: list[Callable[[str, str], None]] = []  # what the one audit hook asks


@functools.cache
def _listen() -> None:
    """Adds the hook, once and for good: it cannot be removed."""

    def hook(event: str, args: tuple) -> None:
        for rule in list(_RULES) if args else ():
            rule(event, str(args[0]))

    sys.addaudithook(hook)


@contextlib.contextmanager
def at(where: str, action: Callable[[], Any], *, times: int = 1) -> Iterator[None]:
    """Calls `action` before this process does "EVENT PATTERN" in checkpoints/, the first times.

    EVENT is what the interpreter tells audit hooks: "os.mkdir", "open" or "os.rename".
    """
    wanted, pattern = where.split()
    left = times

    def rule(event: str, path: str) -> None:
        nonlocal left
        if left and event == wanted and fnmatch.fnmatch(path, f"*/checkpoints/{pattern}"):
            left -= 1
            action()

    _listen()
    _RULES.append(rule)
    try:
        yield
    finally:
        _RULES.remove(rule)


def failing(where: str, number: int, *, times: int = 1) -> contextlib.AbstractContextManager:
    """Lets an operation, as `at` names it, fail with an error of the system."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return at(where, fail, times=times)


@contextlib.contextmanager
def killed(where: str) -> Iterator[None]:
    """Kills this process after "step N", or before what `at` describes."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    event, pattern = where.split()
    if event == "step":
        with after_step(int(pattern), kill):
            yield
    else:
        with at(where, kill):
            yield


def run_and_die(workdir: str, values: dict, cache: str, where: str, data: bool = True) -> None:
    """Trains with the config `values` until `where`; for a process of its own."""
    jax.config.update("jax_default_matmul_precision", "float32")  # as in conftest.py
    with cached_programs(Path(cache)), installed(data=data), killed(where):
        training.run(ConfigDict(values), workdir)


def run_and_send_twice(workdir: str, values: dict, cache: str, number: int) -> None:
    """Trains until step 4, and gets a signal there twice or more; for a process of its own."""

    def twice() -> None:
        for _ in range(30):  # where all is busy, two may be heard at once and count as one
            os.kill(os.getpid(), number)
            time.sleep(2 * ONCE)

    jax.config.update("jax_default_matmul_precision", "float32")
    with cached_programs(Path(cache)), installed(), after_step(4, twice):
        training.run(ConfigDict(values), workdir)
