"""The golden files' parameters and inputs, rebuilt from their recipe (tests/golden/README.md)."""

import functools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rvrt_jax.models import build
from rvrt_jax.models.contract import in_channels
from rvrt_jax.weights import families, mapping

GOLDEN = Path(__file__).parents[1] / "golden"


def fill(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns the made-up value of a checkpoint key."""
    rng = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF)
    noise = rng.standard_normal(int(np.prod(shape))).reshape(shape)
    if "relative_position_bias_table" in key:
        value = 0.3 * noise
    elif len(shape) == 1:
        value = 1 + 0.1 * noise if key.endswith("weight") else 0.05 * noise
    else:
        gain = 0.6 if key.startswith("spynet.") else 0.45 if "conv_offset.10" in key else 1.0
        value = gain * noise / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def smooth_video(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns drifting waves in [0, 1], float32 (n, t, c, h, w)."""
    n, t, c, h, w = shape
    rng = np.random.RandomState(seed)
    video = np.zeros(shape)
    y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    for i in range(n):
        for ch in range(c):
            for _ in range(6):
                fy, fx = rng.uniform(-0.35, 0.35, 2)
                phase = rng.uniform(0, 6.28)
                amplitude = rng.uniform(0.05, 0.15)
                vy, vx = rng.uniform(-1.5, 1.5, 2)
                for k in range(t):
                    wave = np.sin(fy * (y - vy * k) + fx * (x - vx * k) + phase)
                    video[i, k, ch] += amplitude * wave
    return np.clip(video + 0.5, 0, 1).astype(np.float32)


def state_dict(
    table: mapping.Table, shapes: dict[str, tuple[int, ...]], seed: int, prefix: str = ""
):
    """Returns made-up weights by checkpoint key, buffers left out, for parameters of `shapes`."""
    empty = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    empty = mapping.without_buffers(table, mapping.to_state(table, empty))
    return {key: fill(prefix + key, array.shape, seed) for key, array in empty.items()}


def parameter_shapes(model) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter, by path."""
    frames = model.window or 2 * model.time_multiple
    video = jnp.zeros((1, frames, 16, 16, in_channels(model)))
    tree = jax.eval_shape(model.init, jax.random.key(0), video)["params"]
    return {path: leaf.shape for path, leaf in mapping.flatten(tree).items()}


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of tests/golden/<name>.npz."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def rvrt(name: str, **fields):
    """Returns (model, params, arrays) of the golden file tests/golden/rvrt/<name>.npz."""
    arrays = load(f"rvrt/{name}")
    config = json.loads(str(arrays["config"]))
    model = build("rvrt", **config, **fields)
    shapes = parameter_shapes(model)
    table = families.table("rvrt", config)
    state = state_dict(table, shapes, int(arrays["seed"]))
    return model, mapping.nest(mapping.to_params(table, state, shapes)), arrays


def channels_last(x: np.ndarray) -> np.ndarray:
    """Turns (n, t, c, h, w) into [n, t, h, w, c]."""
    return np.ascontiguousarray(np.moveaxis(x, -3, -1))
