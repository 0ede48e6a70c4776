"""What a run was made with, in its folder: a line of `manifest.jsonl` for every start."""

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

MANIFEST = "manifest.jsonl"
PACKAGES = ("rvrt_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def append(workdir: Path, *, step: int, changes: Sequence[str]) -> None:
    """Adds this start at `step`; changes: in the config since the last one."""
    with (workdir / MANIFEST).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "changes": list(changes), **facts()}) + "\n")


def facts() -> dict[str, Any]:
    """Returns when and where this process runs, with which code and command."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "git": _git(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
    }


def _git(folder: Path) -> dict[str, Any] | None:
    """Returns the commit and whether files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
            ).stdout
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or not this user's checkout
        return None
    return {"commit": commit.strip(), "changed": changed.splitlines()}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return None
