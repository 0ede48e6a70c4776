"""Restores a clip with a toy network in processes that are stopped at a moment of choice.

`python interrupted.py INPUT OUTPUT MOMENT [OUTPUT MOMENT]...` forks a process for each moment,
"SIGNAL@EVENT": it sends itself the signal when it does EVENT, a number, of what the interpreter
tells audit hooks (opening, renaming, removing files) below the folder of the output. "count" prints
how many events there are, "run" restores without a signal, "skip" also what is damaged. Prints a
line of JSON for each.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Literal

import jax
from helpers.toy import PARAMS, Toy

from rvrt_jax.errors import exit_code, stopped_by_sigterm
from rvrt_jax.media.frames import open_frames
from rvrt_jax.restoration.clip import OutputOptions, Stages, restore_clip
from rvrt_jax.restoration.settings import RestoreSettings

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree")
SETTINGS = RestoreSettings(tile=(6, 16, 16), overlap=(2, 4, 4))


def restore(source: str, output: str, *, damaged: Literal["error", "skip"] = "error") -> int:
    def run() -> None:
        with open_frames(source, damaged=damaged) as frames:
            stages = Stages((Toy(scale=2, blur=True), PARAMS))
            restore_clip(stages, frames, output, SETTINGS, OutputOptions(), name="clip")

    with stopped_by_sigterm():
        return exit_code(run)


def stopped(source: str, output: str, moment: str) -> int:
    """Restores until the moment; returns the exit code, or how many events there were."""
    name, _, at = moment.partition("@")
    count, folder = 0, str(Path(output).parent)

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if event in EVENTS and str(args[0]).startswith(folder):
            count += 1
            if at and count == int(at):
                os.kill(os.getpid(), getattr(signal, name))

    if name == "full":  # files cannot grow beyond a size, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(at), int(at)))
        return restore(source, output)
    if name == "skip":
        return restore(source, output, damaged="skip")
    sys.addaudithook(hook)
    code = restore(source, output)
    if moment == "count":
        print(json.dumps({"events": count}), flush=True)
    return code


def main(source: str, *arguments: str) -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and so would these processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for output, moment in zip(arguments[::2], arguments[1::2], strict=True):
        child = os.fork()  # before JAX has threads
        if child == 0:
            jax.config.update("jax_platforms", "cpu")
            code = 99
            with contextlib.suppress(BaseException):
                code = stopped(source, output, moment)
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
