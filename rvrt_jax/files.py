"""Outputs: written whole or not at all, and never in the place of an input.

A file or folder is made under a hidden name beside its own, `.NAME.TOKEN.part.SUFFIX`, and takes
its name when it is complete. The process that makes it holds a lock on it (flock), which ends with
the process however that ends: what a dead run left is found by the lock and removed.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rvrt_jax.errors import UserError, describe

PAUSES = (1.0, 5.0, 15.0)  # seconds before the second, third and fourth try to read

Result = TypeVar("Result")

_PART, _OLD = "part", "old"
_LONGEST_STEM = 100  # characters; file systems allow 255 bytes for the whole name


def cache_dir() -> Path:
    """Returns the user's folder for what can be had again; it need not exist.

    `$RVRT_JAX_CACHE`, else `$XDG_CACHE_HOME/rvrt_jax`, else `~/.cache/rvrt_jax`.
    """
    if own := os.environ.get("RVRT_JAX_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rvrt_jax"


def trouble(error: Exception) -> str | None:
    """Returns what an error says of the disk, which may work again; None if it is not about it."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return describe(error)
    return None


def patiently(action: Callable[[], Result]) -> Result:
    """Returns what `action` reads, which is tried again if the disk fails for a moment."""
    for pause in PAUSES:
        try:
            return action()
        except OSError as error:
            if trouble(error) is None:
                raise
        time.sleep(pause)
    return action()


def check_outputs(
    outputs: Iterable[str | os.PathLike],
    *,
    inputs: Iterable[str | os.PathLike] = (),
    overwrite: bool,
) -> None:
    """Raises UserError if writing `outputs` would replace an input, or what may not be replaced.

    inputs: every file that will be read. They are compared as files, not as names: links, hard
    links, other spellings and other cases of a name are the same file. An output folder is
    replaced as a whole, so it must hold no input, and no folder of one, at any depth.
    overwrite: whether something at an output's place, other than an empty folder, may be replaced.
    """
    kept = _identities(inputs)
    claimed: dict[str, str] = {}
    for output in [os.fspath(path) for path in outputs]:
        for path in _replaced_with(output):
            name = kept.get(_identity(path))
            if name is not None:
                raise UserError(
                    f"{output} would replace {name}, which is an input or holds one. "
                    "Choose another output."
                )
        real = os.path.realpath(output)
        if real in claimed:
            raise UserError(f"{output} and {claimed[real]} are the same output. Rename one.")
        claimed[real] = output
        if not overwrite:
            check_free(output)


def check_free(path: str | os.PathLike) -> None:
    """Raises UserError if there is something at `path`, other than an empty folder."""
    if is_taken(path):
        raise UserError(f"{path} exists. Choose another name, or pass --overwrite.")


def is_taken(path: str | os.PathLike) -> bool:
    """Returns whether there is something at `path`, other than an empty folder."""
    return os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path))


def _identities(inputs: Iterable[str | os.PathLike]) -> dict[tuple[int, int] | None, str]:
    """Returns the names of input files, and of the folders they lie in, by their identity."""
    found: dict[tuple[int, int] | None, str] = {}
    folders = set()
    for name in [os.fspath(path) for path in inputs]:
        found.setdefault(_identity(name), name)
        folders |= {*Path(os.path.abspath(name)).parents, *Path(os.path.realpath(name)).parents}
    for folder in folders:
        found.setdefault(_identity(folder), str(folder))
    found.pop(None, None)
    return found


def _replaced_with(output: str) -> Iterator[str]:
    """Yields what disappears when something new takes the name `output`."""
    yield output
    if os.path.isdir(output):
        for folder, folders, files in os.walk(output):
            yield from (os.path.join(folder, name) for name in (*folders, *files))


def _identity(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns the device and inode that `path` leads to; None if that does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike, *, folder: bool = False, within: Path | None = None
) -> Iterator[Path]:
    """Yields an empty file or folder beside `path`, which takes its name on success.

    Its suffix is that of `path`; a link stays one, and what it leads to is replaced. After an
    exception the new one is removed, and `path` is as it was. What earlier processes left of
    `path` when they were killed is removed first.
    within: a folder on the same file system, in which it is made instead, and which the caller has
    for itself.
    """
    target, suffix = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    clean(path)
    token = secrets.token_hex(4)
    partial = _beside(target, suffix, token, _PART)
    if within is not None:
        partial = within / f"result{suffix}"
        remove(partial)
    handle = _create(partial, folder=folder)
    try:
        yield partial
        os.fsync(handle)
        if target.is_dir():
            old = _beside(target, suffix, token, _OLD)
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.replace(target)
    finally:
        os.close(handle)
        remove(partial)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file of text, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def clean(path: str | os.PathLike) -> None:
    """Removes what processes that were killed left of `path`, or puts it back in its place."""
    target, suffix = _target(path)
    for left in _left(target, suffix, _OLD):
        if not target.exists():  # killed between two renames: this is the result before
            left.rename(target)
        else:
            remove(left)
    for left in _left(target, suffix, _PART):
        remove(left)


def lock(handle: int) -> bool:
    """Locks an open file or folder until it is closed; False if another process holds the lock.

    Where the file system has no locks nothing is known, which counts as locked by others.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove(path: Path) -> None:
    """Removes a file or a folder with all it holds, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _create(path: Path, *, folder: bool) -> int:
    """Makes an empty file or folder and locks it; returns the handle that holds the lock."""
    if folder:
        path.mkdir()
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    lock(handle)
    return handle


def _target(path: str | os.PathLike) -> tuple[Path, str]:
    """Returns where links lead from `path`, and the suffix of `path` itself."""
    return Path(os.path.realpath(path)), Path(path).suffix


def _beside(target: Path, suffix: str, token: str, kind: str) -> Path:
    return target.with_name(f".{target.stem[:_LONGEST_STEM]}.{token}.{kind}{suffix}")


def _left(target: Path, suffix: str, kind: str) -> Iterator[Path]:
    """Yields the partial or old results of `target` that no living process holds."""
    form = f".{target.stem[:_LONGEST_STEM]}.", f".{kind}{suffix}"
    for path in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        token = path.name.removeprefix(form[0]).removesuffix(form[1])
        if path.name != token.join(form) or len(token) != 8:
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            if lock(handle):
                yield path
        finally:
            os.close(handle)
