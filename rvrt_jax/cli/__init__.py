"""The installed command `rvrt`: restore, weights, convert, prepare, export, web.

Subcommands import what they need when they are called, so that help and mistakes answer at once.
"""

import sys
from typing import Any

import click

from rvrt_jax.cli.restore import restore

# What is handed on as it is to programs that read their own arguments.
_AS_IT_IS: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rvrt_jax", prog_name="rvrt")
def rvrt() -> None:
    """Restore video with RVRT, EDVR and BasicVSR."""


rvrt.add_command(restore)


@rvrt.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def weights(arguments: tuple[str, ...]) -> None:
    """List trained weights and fetch them: list, get NAME."""
    from rvrt_jax.weights import __main__ as program

    sys.exit(program.main(list(arguments)))


@rvrt.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def convert(arguments: tuple[str, ...]) -> None:
    """Convert a checkpoint: IN OUT."""
    from rvrt_jax import convert as program

    sys.exit(program.main(list(arguments)))


@rvrt.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def prepare(arguments: tuple[str, ...]) -> None:
    """Prepare data for training and testing: NAME --source DIR."""
    from rvrt_jax.data.prepare import __main__ as program

    sys.exit(program.main(list(arguments)))


@rvrt.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def export(arguments: tuple[str, ...]) -> None:
    """Write a network of one size for other runtimes: MODEL OUT.rvrt or OUT.onnx."""
    from rvrt_jax.export import __main__ as program

    sys.exit(program.main(list(arguments)))


@rvrt.command(context_settings=_AS_IT_IS, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def web(arguments: tuple[str, ...]) -> None:
    """Open a page in the browser that restores films."""
    from rvrt_jax.web import __main__ as program

    sys.exit(program.main(list(arguments)))


def main() -> None:
    """Runs the command line."""
    rvrt(prog_name="rvrt")
