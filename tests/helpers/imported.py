"""Prints which packages are asked for when modules are imported, found or not, as a JSON list.

    python -m tests.helpers.imported rvrt_jax.data.records

For a process of its own: what a test's process has imported already would not be seen.
"""

import importlib
import importlib.abc
import json
import subprocess
import sys
from pathlib import Path


class Recorder(importlib.abc.MetaPathFinder):
    """Notes the packages looked for; finds none itself."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, fullname, path, target=None) -> None:
        self.names.add(fullname.split(".")[0])


def packages_of(*modules: str) -> set[str]:
    """Returns the top-level packages that importing `modules` asks for."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.imported", *modules],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


if __name__ == "__main__":
    recorder = Recorder()
    sys.meta_path.insert(0, recorder)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    print(json.dumps(sorted(recorder.names)))
