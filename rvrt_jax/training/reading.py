"""Reading a checkpoint on one host, and telling a disk that fails for a moment from damage."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rvrt_jax import files
from rvrt_jax.errors import UserError, describe

PROOF = 2  # tries that fail although all files could be read
# How tensorstore's errors begin where content was read and is wrong, cut short or not decodable.
_WRONG_CONTENT = ("DATA_LOSS: ", "OUT_OF_RANGE: ", "FAILED_PRECONDITION: ", "INVALID_ARGUMENT: ")


class Damaged(Exception):
    """What was read is not what was written."""


def read(folder: Path, items: dict[str, Any]) -> dict[str, Any]:
    """Returns the items of the checkpoint in `folder` as NumPy arrays; waits for no other host.

    items: {name: tree of shapes and dtypes}. A read that fails is tried again. Raises Damaged if
    the files can be read and their content is broken; UserError if the disk keeps on failing, if
    the content is of another structure, or if something else than the files is the reason.
    """
    broken = 0
    for pause in (*files.PAUSES, None):
        try:
            found = {name: _read_item(folder / name, like) for name, like in items.items()}
            _check_structure(folder, items, found)
            return found
        except UserError:
            raise
        except Exception as error:  # orbax has no type of its own for a damaged file
            trouble = files.trouble(error)
            if _tells_of_damage(error):
                trouble = _cannot_be_read(folder)
                broken += trouble is None
            elif trouble is None:
                _check_structure(folder, items, _stored(folder, items))
            if broken == PROOF:
                raise Damaged(describe(error)) from error
            if isinstance(error, FileNotFoundError | MemoryError):  # waiting does not help
                raise _unreadable(folder, describe(error), "Provide what is missing") from error
            if pause is None:
                tried = f"{trouble or describe(error)}; tried {len(files.PAUSES) + 1} times"
                raise _unreadable(folder, tried, "Look after the disk") from error
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _unreadable(folder: Path, reason: str, advice: str) -> UserError:
    return UserError(
        f"checkpoint {folder} cannot be read ({reason}). Nothing says that it is damaged, so "
        f"nothing was changed. {advice} and start the same command again; to go back to the "
        "checkpoint before, move this one elsewhere."
    )


def _read_item(folder: Path, like: Any) -> Any:
    """Reads one item with orbax, which is told that this host is alone."""
    abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
    with _checkpointer() as checkpointer:
        return checkpointer.restore(folder, args=ocp.args.StandardRestore(abstract))


def _checkpointer() -> ocp.Checkpointer:
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"host{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _tells_of_damage(error: Exception) -> bool:
    """Returns whether an error says that content was read, and is broken.

    Lack of memory or of a file, and another structure, say nothing of the kind. Errors of the
    system have the same codes in tensorstore, but say so.
    """
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError):
        return True
    text = str(error)
    return (
        isinstance(error, ValueError) and text.startswith(_WRONG_CONTENT) and "OS error" not in text
    )


def _stored(folder: Path, items: dict[str, Any]) -> dict[str, Any]:
    """Returns the items as their metadata describe them; only those that can be known."""
    found = {}
    for name in items:
        try:
            with _checkpointer() as checkpointer:
                found[name] = checkpointer.metadata(folder / name).item_metadata.tree
        except Exception:  # it is asked only to explain another error
            continue
    return found


def _check_structure(folder: Path, items: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises UserError that names what differs, if items were found with other arrays."""
    for name in found:
        wanted, there = _shapes(items[name]), _shapes(found[name])
        differ = [
            f"{name}/{path}: {there.get(path, 'nothing')} instead of {wanted.get(path, 'nothing')}"
            for path in sorted(wanted.keys() | there.keys())
            if wanted.get(path) != there.get(path)
        ]
        if differ:
            raise UserError(
                f"checkpoint {folder} does not fit this run: it holds {'; '.join(differ[:3])}"
                f"{' …' if differ[3:] else ''}. Nothing was changed. If the config has changed, "
                "set it back; if another version of rvrt_jax wrote it, go on with that one; "
                "otherwise pass another --workdir."
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape}; paths are the same for the kinds of containers that orbax swaps."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


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
