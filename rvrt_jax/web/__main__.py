"""A page in the browser that restores films.

rvrt web [--host 127.0.0.1] [--port 7860]
"""

import argparse
import socket
import sys
import tempfile
import time
from pathlib import Path

from rvrt_jax import command_line
from rvrt_jax.errors import UserError, exit_code
from rvrt_jax.web import job

LOCAL = "127.0.0.1"


def run(limits: job.Limits, *, host: str, port: int) -> None:
    """Serves the page until it is interrupted; removes all files in the end.

    port: 0 takes a free one. Raises UserError if gradio is not installed, the port is taken, or the
    machine is too busy to start.
    """
    try:
        from rvrt_jax.web import page
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; run: pip install 'rvrt_jax[web]'"
        ) from error
    try:
        with socket.create_server((host, port)) as free:
            port = free.getsockname()[1]
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be opened ({error}). Pass another --port."
        ) from error
    with tempfile.TemporaryDirectory(prefix="rvrt_jax_web_") as folder:
        files = job.Files(Path(folder))
        try:
            opened = page.serve(files, limits, host=host, port=port)
        except OSError as error:  # gradio takes a server that is slow to start for a taken port
            raise UserError(
                f"the page did not start at {host}:{port} within gradio's 5 seconds: the machine "
                "is busy, or the port was taken just now. Run it again, or pass another --port."
            ) from error
        print(f"open http://{host}:{port} in a browser; Ctrl-C ends it", flush=True)
        if host != LOCAL:
            print("everyone who reaches this address can use it: there is no login", flush=True)
        try:
            while True:
                time.sleep(min(60, limits.kept_seconds / 2))
                files.clean(older_than=limits.kept_seconds)
        except KeyboardInterrupt:
            opened.close()


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    limits = job.Limits()
    parser = argparse.ArgumentParser(
        prog="rvrt web", description="Open a page in the browser that restores films."
    )
    parser.add_argument("--host", default=LOCAL, help=f"address to listen at ({LOCAL})")
    parser.add_argument("--port", type=int, default=7860, help="(7860); 0: a free one")
    parser.add_argument(
        "--frames", type=int, default=limits.frames, help=f"restored at once ({limits.frames})"
    )
    parser.add_argument(
        "--megabytes", type=int, default=limits.megabytes, help=f"of a file ({limits.megabytes})"
    )
    parser.add_argument(
        "--kept_seconds", type=int, default=limits.kept_seconds,
        help=f"how long files stay ({limits.kept_seconds})",
    )  # fmt: skip
    parser.add_argument("--compile_cache", metavar="DIR", help=command_line.COMPILE_CACHE)
    args = parser.parse_args(argv)
    command_line.keep_programs(args.compile_cache)
    limits = job.Limits(
        frames=args.frames, megabytes=args.megabytes, kept_seconds=args.kept_seconds
    )
    return exit_code(lambda: run(limits, host=args.host, port=args.port))


if __name__ == "__main__":
    sys.exit(main())
