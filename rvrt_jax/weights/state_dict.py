"""Read and write state dicts with what belongs to them: the model's config and the licence.

A `.safetensors` file of this project keeps the published keys and PyTorch's array layout, not
Flax paths: those keys are fixed by publication while the tree may still change, PyTorch users can
load the file as it is, and one key table serves both formats. Its metadata holds

    model    JSON: {"name": ..., and the fields of the model}
    license  of the weights: an SPDX name such as CC-BY-NC-4.0, or "unknown"
    source   where they come from, in words
    format   "pt": PyTorch's layout

Buffers are left out of it. A `.pth` holds none of the metadata.
"""

import dataclasses
import json
import os
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.files import replacing
from rvrt_jax.weights import pth

SUFFIXES = (".pth", ".pt", ".safetensors")

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state dict; `config` ({"name": ..., fields}) is None where the file does not say it."""

    state: Mapping[str, np.ndarray]
    config: Mapping | None = None
    license: str = "unknown"
    source: str = "unknown"


def read(path: str | os.PathLike, *, entry: str | None = None) -> Checkpoint:
    """Reads a `.pth` or `.safetensors` file; arrays keep the stored dtype.

    entry: which state dict of a `.pth` with several. Raises UserError for another suffix or a
    file that is not what its suffix says, FileNotFoundError where there is none.
    """
    path = os.fspath(path)
    if _suffix(path) != ".safetensors":
        return Checkpoint(pth.read(path, entry=entry))
    import safetensors  # here, so that networks can be filled where it is not installed

    with open(path, "rb") as file:
        data = file.read()
    try:
        with safetensors.safe_open(path, framework="np") as header:
            metadata = header.metadata() or {}
        tensors = safetensors.deserialize(data)
        state = {
            key: np.frombuffer(t["data"], _DTYPES[t["dtype"]]).reshape(t["shape"])
            for key, t in tensors
        }
        config = json.loads(metadata["model"]) if "model" in metadata else None
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: no safetensors file, or cut short, {len(data)} bytes "
            f"({type(error).__name__}: {error}). Fetch or convert it again."
        ) from error
    return Checkpoint(
        state,
        config,
        license=metadata.get("license", "unknown"),
        source=metadata.get("source", "unknown"),
    )


def write(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Writes a `.pth` or `.safetensors` file; it appears only when complete.

    Raises UserError for another suffix, and for `.safetensors` without a config.
    """
    path = os.fspath(path)
    if _suffix(path) != ".safetensors":
        pth.write(path, checkpoint.state)
        return
    if checkpoint.config is None:
        raise UserError(f"{path}: a safetensors file says its model; give the name of it.")
    metadata = {
        "format": "pt",
        "model": json.dumps(checkpoint.config),
        "license": checkpoint.license,
        "source": checkpoint.source,
    }
    state = {key: np.ascontiguousarray(array) for key, array in checkpoint.state.items()}
    import safetensors.numpy

    data = safetensors.numpy.save(state, metadata)  # save_file lets nobody else read the file
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def _suffix(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: the name ends in none of {', '.join(SUFFIXES)}.")
    return suffix
