"""What plain clips hold, kept in the user's cache, so that a start need not read all of them.

A clip is looked at again when the name, size or time of change of one of its files differs.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from rvrt_jax import files

_VERSION = 1
Facts = dict[str, Any]  # frames, height, width, and files: names of images, None for a video


class Inventory:
    """The facts about the clips below `root`, as they were found before."""

    def __init__(self, root: Path) -> None:
        root = root.absolute()
        name = hashlib.sha256(str(root).encode()).hexdigest()[:16]
        self._root = str(root)
        self._path = folder() / f"{name}.json"
        self._known: dict[str, list] = {}  # by path: the state of its files, facts
        self._changed = False
        if self._path.is_file():
            self._known = _read(self._path, self._root)

    def get(self, path: Path) -> Facts | None:
        """Returns the facts of a clip whose files are as they were; else None."""
        state, facts = self._known.get(str(path.absolute()), (None, None))
        return facts if state is not None and state == _state(path) else None

    def add(self, path: Path, facts: Facts) -> None:
        """Notes what a clip holds."""
        self._known[str(path.absolute())] = [_state(path), facts]
        self._changed = True

    def save(self) -> None:
        """Writes what is new; a cache that cannot be written costs time, and is warned of."""
        if not self._changed:
            return
        text = json.dumps({"version": _VERSION, "root": self._root, "clips": self._known})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(self._path, text)
        except OSError as error:
            logging.warning("%s cannot be written (%s): clips are read again.", self._path, error)


def folder() -> Path:
    """Returns where inventories are kept."""
    return files.cache_dir() / "clips"


def _read(path: Path, root: str) -> dict[str, list]:
    """Returns what was kept; nothing of another version, or where the file is damaged."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        logging.warning("%s cannot be read (%s): clips are read again.", path, error)
        return {}
    if not isinstance(kept, dict) or (kept.get("version"), kept.get("root")) != (_VERSION, root):
        return {}
    clips = kept.get("clips")
    return {k: v for k, v in clips.items() if _is_entry(v)} if isinstance(clips, dict) else {}


def _is_entry(entry: Any) -> bool:
    """Returns whether this is what `add` notes of a clip, and nothing that others have written."""
    match entry:
        case [str(), {"frames": int(), "height": int(), "width": int(), "files": None}]:
            return True
        case [str(), {"frames": int(), "height": int(), "width": int(), "files": [*names]}]:
            return all(isinstance(name, str) for name in names)
    return False


def _state(path: Path) -> str:
    """Returns a digest of names, sizes and times of change of a clip's files."""
    entries = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(entry.name, *_stat(entry)) for entry in entries]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _stat(path: Path) -> tuple[int, int]:
    """Returns size and time of change of what a path leads to."""
    try:
        about = os.stat(path)
    except OSError:  # a link that leads nowhere, such as Emacs' locks, is no frame
        if not path.is_symlink():
            raise
        about = os.lstat(path)
    return about.st_size, about.st_mtime_ns
