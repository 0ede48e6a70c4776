"""Writes a network of one size to a file that runs elsewhere.

rvrt export MODEL out.rvrt --frames 8 --height 96 --width 160
rvrt export MODEL out.onnx --frames 8 --height 96 --width 160
"""

import argparse
import sys

from rvrt_jax.errors import exit_code
from rvrt_jax.export.write import export


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
