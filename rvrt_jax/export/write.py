"""Writes a network of one size to a file that runs without this package."""

import os
from collections.abc import Sequence

from rvrt_jax.errors import UserError
from rvrt_jax.export import onnx_file, program
from rvrt_jax.files import check_outputs
from rvrt_jax.weights.load import load_described

SUFFIXES = (".rvrt", ".onnx")


def export(
    model: str,
    output: str,
    *,
    size: tuple[int, int, int],
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    overwrite: bool = False,
) -> dict:
    """Writes a network to `output`: StableHLO if it ends in .rvrt, ONNX if it ends in .onnx.

    model: as for `rvrt_jax.load`. size: frames, height and width of the input. platforms: for
    .rvrt files. Returns what the file says of the network. Raises UserError for a size that the
    network cannot take, another suffix, an output that exists, and a package that is missing.
    """
    suffix = os.path.splitext(output)[1]
    if suffix not in SUFFIXES:
        raise UserError(f"{output}: the name ends in none of {', '.join(SUFFIXES)}.")
    check_outputs([output], inputs=[model] if os.path.exists(model) else [], overwrite=overwrite)
    fixed = program.Fixed(load_described(model), size)
    if suffix == ".onnx":
        onnx_file.write(output, fixed)
    else:
        program.write(output, fixed, platforms)
    return fixed.header()
