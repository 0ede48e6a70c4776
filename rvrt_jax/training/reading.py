"""Reading a checkpoint on one host, and telling a disk that fails for a moment from damage."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from rvrt_jax.errors import UserError, describe

Result = TypeVar("Result")

PAUSES = (1.0, 5.0, 15.0)  # seconds before the second, third and fourth try
PROOF = 2  # tries that fail although all files could be read


class Damaged(Exception):
    """What was read, all of it, is no checkpoint of this structure."""


def read(folder: Path, items: dict[str, Any]) -> dict[str, Any]:
    """Returns the items of the checkpoint in `folder` as NumPy arrays; waits for no other host.

    items: {name: tree of shapes and dtypes}. A read that fails is tried again. Raises Damaged if
    the files can be read and are no such checkpoint, UserError if the disk keeps on failing.
    """
    failed = 0
    for pause in (*PAUSES, None):
        try:
            return {name: _read_item(folder / name, like) for name, like in items.items()}
        except Exception as error:  # orbax has no type of its own for a damaged file
            trouble = _trouble(error) or _cannot_be_read(folder)
            failed += trouble is None
            if failed == PROOF:
                raise Damaged(describe(error)) from error
            if pause is None:
                raise UserError(
                    f"checkpoint {folder} cannot be read ({trouble or describe(error)}; tried "
                    f"{len(PAUSES) + 1} times). Nothing says that it is damaged, so nothing was "
                    "changed. Look after the disk and start the same command again; to go back "
                    "to the checkpoint before, move this one elsewhere."
                ) from error
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def patiently(action: Callable[[], Result]) -> Result:
    """Returns what `action` does, which is tried again if the disk fails."""
    for pause in PAUSES:
        try:
            return action()
        except OSError as error:
            if _trouble(error) is None:
                raise
        time.sleep(pause)
    return action()


def _read_item(folder: Path, like: Any) -> Any:
    """Reads one item with orbax, which is told that this host is alone."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"host{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        return checkpointer.restore(folder, args=ocp.args.StandardRestore(abstract))


def _trouble(error: Exception) -> str | None:
    """Returns what an error says of the disk; None if it is not about the disk."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return describe(error)
    return None


def _cannot_be_read(folder: Path) -> str | None:
    """Returns why a file of the checkpoint cannot be read; None if all can.

    tensorstore's errors do not say whether a file could not be read or could not be decoded.
    """
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    while file.read(2**24):
                        pass
    except OSError as error:
        return describe(error)
    return None
