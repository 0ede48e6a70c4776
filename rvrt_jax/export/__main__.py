"""Writes a network of one size to a file that runs elsewhere.

rvrt export MODEL out.rvrt --frames 8 --height 96 --width 160
rvrt export MODEL out.onnx --frames 8 --height 96 --width 160
"""

import argparse
import os
import sys
from collections.abc import Sequence

from rvrt_jax.errors import UserError, exit_code
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


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="rvrt export",
        description="Write a network of one size to a file that runs without rvrt_jax.",
    )
    parser.add_argument("model", help="a name that `rvrt weights list` shows, or a file or run")
    parser.add_argument("output", help="NAME.rvrt for StableHLO, NAME.onnx for ONNX")
    for name in ("frames", "height", "width"):
        parser.add_argument(f"--{name}", type=int, required=True, help="of the input")
    parser.add_argument(
        "--platforms", default="cpu,cuda,tpu", help="that a .rvrt file runs on (cpu,cuda,tpu)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    args = parser.parse_args(argv)

    def run() -> None:
        header = export(
            args.model,
            args.output,
            size=(args.frames, args.height, args.width),
            platforms=args.platforms.split(","),
            overwrite=args.overwrite,
        )
        shapes = [tuple(header[part]["shape"]) for part in ("input", "output")]
        print(f"{args.output}: float32 {shapes[0]} -> {shapes[1]}; licence: {header['license']}")

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
