"""The files of a download, unpacked or still in .zip archives, by their paths."""

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from rvrt_jax.errors import UserError

_UNREAD_ARCHIVES = (".tar", ".gz", ".tgz", ".7z", ".rar", ".xz", ".bz2")


@dataclass(frozen=True)
class File:
    """A file of `size` bytes, in `archive` if that is not None."""

    size: int
    archive: Path | None


class Tree:
    """All files of a folder and of the .zip archives in it, or of one archive.

    Their paths are absolute; an archive's members lie where unpacking it there would put them.
    files: by path, hidden ones left out. unread: archives of other kinds, whose insides are
    unknown. A context manager: archives are open meanwhile.
    """

    def __init__(self, source: Path) -> None:
        """Lists the files; raises UserError for a missing source or a broken archive."""
        if not source.exists():
            raise UserError(f"{source} does not exist. Give the folder that holds the download.")
        self.source = source
        self.files: dict[str, File] = {}
        self.unread: list[Path] = []
        self._open: dict[Path, zipfile.ZipFile] = {}
        for path in [source] if source.is_file() else _walk(source):
            if path.suffix.lower() == ".zip":
                self._add_archive(path)
            elif path.suffix.lower() in _UNREAD_ARCHIVES:
                self.unread.append(path)
            else:
                self._add(os.path.abspath(path), path.stat().st_size, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        for archive in self._open.values():
            archive.close()

    def read(self, path: str) -> bytes:
        """Reads a file; raises UserError if its archive is damaged there."""
        archive = self.files[path].archive
        if archive is None:
            return Path(path).read_bytes()
        member = os.path.relpath(path, os.path.abspath(archive.parent))
        try:
            return self._open[archive].read(PurePosixPath(Path(member)).as_posix())
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"{member} in {archive} is damaged ({error}). Download the archive again."
            ) from error

    def _add(self, path: str, size: int, archive: Path | None) -> None:
        self.files[Path(path).as_posix()] = File(size, archive)

    def _add_archive(self, path: Path) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{path} is not a whole .zip archive ({error}). Download it again."
            ) from error
        self._open[path] = archive
        folder = os.path.abspath(path.parent)
        for member in archive.infolist():
            parts = PurePosixPath(member.filename).parts
            if not member.is_dir() and not any(
                part.startswith((".", "__MACOSX")) for part in parts
            ):
                self._add(os.path.join(folder, *parts), member.file_size, path)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))
