"""A network of one fixed size as a program in StableHLO: a `.rvrt` file.

The file is a zip, nothing in it compressed:

    header.json          what the program takes and returns, its platforms, the licence
    program.stablehlo    what `jax.export` serialises: StableHLO with a version, so that a later
                         JAX can run it (JAX promises six months)
    weights.safetensors  the parameters, float32, named by their path in the network
    __main__.py          `loader.py`, which reads and runs the file

The program takes the parameters, as a dict, and the video: the network as it is, without the
padding, tiles and windows of `rvrt_jax.restore`.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from rvrt_jax.errors import UserError
from rvrt_jax.files import replacing
from rvrt_jax.models.contract import Network, Size, in_channels, slides
from rvrt_jax.ops.platforms import known_to_be
from rvrt_jax.ops.window_attention import plain_only
from rvrt_jax.weights import mapping
from rvrt_jax.weights.load import Loaded, config

FORMAT = 1  # of the zip; loader.py says which it reads
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_DATE = (1980, 1, 1, 0, 0, 0)  # the same network gives the same bytes


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A network at one size. size: frames, height and width of its input."""

    loaded: Loaded
    size: Size

    def __post_init__(self):
        check_size(self.model, self.size)

    @property
    def model(self) -> Network:
        """The network."""
        return cast(Network, self.loaded.model)

    @property
    def input(self) -> jax.ShapeDtypeStruct:
        """Shape and type of the video, [1, t, h, w, c]."""
        channels = in_channels(self.model)
        return jax.ShapeDtypeStruct((1, *self.size, channels), jnp.float32)

    @property
    def output(self) -> jax.ShapeDtypeStruct:
        """Shape and type of the result. Raises UserError if the network refuses the size."""
        return jax.eval_shape(self, self.weights, self.input)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The parameters by their path, float32."""
        flat = mapping.flatten(self.loaded.params)
        return {path: np.asarray(array, np.float32, order="C") for path, array in flat.items()}

    def __call__(self, weights: dict[str, Any], video: jax.Array) -> jax.Array:
        return self.model.apply({"params": mapping.nest(weights)}, video)

    def header(self) -> dict[str, Any]:
        """Returns what a file says of the network, for JSON."""
        model = self.model
        noise = ", and the noise level: sigma / 255" if model.takes_noise_level else ""
        return {
            "model": config(self.loaded.model),
            "scale": model.scale,
            "input": {
                "name": "video",
                "shape": list(self.input.shape),
                "dtype": "float32",
                "meaning": f"1, frames, height, width, channels: RGB in [0, 1]{noise}",
            },
            "output": {
                "name": "restored",
                "shape": list(self.output.shape),
                "dtype": "float32",
                "meaning": "1, frames, height, width, RGB; not clipped to [0, 1]",
            },
            "license": self.loaded.license,
            "source": self.loaded.source,
        }


def check_size(model: Network, size: Size) -> None:
    """Raises UserError if the network cannot take `size`, naming the multiples and a size near."""
    frames, *pixels = size
    if min(size) < 1:
        raise UserError(f"the size is {size}; frames, height and width are 1 or more.")
    if slides(model):
        if frames != model.window:
            raise UserError(
                f"{frames} frames, but the network makes one frame of a window of {model.window}. "
                f"Pass --frames {model.window}, and slide the window along the video yourself."
            )
    elif frames % model.time_multiple:
        near = _next_multiple(frames, model.time_multiple)
        raise UserError(
            f"{frames} frames, but the network takes a multiple of {model.time_multiple}. "
            f"Pass --frames {near}."
        )
    if any(n % model.size_multiple for n in pixels):
        height, width = (_next_multiple(n, model.size_multiple) for n in pixels)
        raise UserError(
            f"frames of {pixels[0]}x{pixels[1]} (height x width), but the network takes multiples "
            f"of {model.size_multiple}. Pass --height {height} --width {width}."
        )


def _next_multiple(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def write(path: str | os.PathLike, fixed: Fixed, platforms: Sequence[str]) -> None:
    """Writes a `.rvrt` file; it appears only when complete.

    platforms: of PLATFORMS; the program runs on each of them. Raises UserError for another one,
    for a size that the network refuses, and if flatbuffers is not installed.
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise UserError(f"platforms are {','.join(platforms)!r}; choose from {PLATFORMS}.")
    weights = fixed.weights
    shapes = {path: jax.ShapeDtypeStruct(a.shape, a.dtype) for path, a in weights.items()}
    header = {"format": FORMAT, "jax": jax.__version__, "platforms": list(platforms)}
    header |= fixed.header()
    target = platforms[0] if len(platforms) == 1 else None
    # cuDNN's kernels are not among what later versions of JAX promise to run.
    with plain_only(), known_to_be(target):
        program = jax.export.export(jax.jit(fixed.__call__), platforms=platforms)
        exported = program(shapes, fixed.input)
    try:
        serialised = exported.serialize()
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which jax.export writes files with; "
            "run: pip install 'rvrt_jax[export]'"
        ) from error
    members = {
        "header.json": json.dumps(header, indent=2).encode(),
        "program.stablehlo": bytes(serialised),
        "weights.safetensors": safetensors.numpy.save(weights),
        "__main__.py": Path(__file__).with_name("loader.py").read_bytes(),
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name, _DATE), data)
