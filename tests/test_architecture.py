"""Which module may import which: read from the source, nothing is imported here."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import its own layer and those after it, and `errors`. Packages count as one module.
LAYERS = (
    "train eval configs rvrt_jax demo convert.__main__",  # entry points, and the public names
    "training validation inference evaluation protocol scoreboard scoring",
    "step checkpoint logs tiling sliding ensemble metrics loading weights download compare "
    "testsets consistency",
    "state optim parallel convert data",
    "models",
    "ops",
    "errors command_line",
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
FREE_OF_JAX = ("data", "convert")
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}


def sources():
    files = [ROOT / "train.py", ROOT / "eval.py", *(ROOT / "configs").glob("*.py")]
    return sorted([*files, *(ROOT / "rvrt_jax").rglob("*.py")])


def module_of(path: Path) -> str:
    """Returns the name that LAYERS gives to the file or folder at `path`, relative to the root."""
    parts = path.with_suffix("").parts
    if parts[0] != "rvrt_jax":
        return parts[0]
    name = ".".join(parts[1:])
    return name if name in LEVEL else "rvrt_jax" if name in ("", "__init__") else parts[1]


def imports_of(path: Path) -> set[str]:
    """Returns the dotted names a file imports anywhere; of a package, the parts it names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_module(imported: str) -> str | None:
    """Returns the module of LAYERS that an import reaches; None for other people's."""
    first, *rest = imported.split(".")
    if first != "rvrt_jax":
        return first if first in LEVEL and (ROOT / first).exists() else None
    part = ROOT / "rvrt_jax" / rest[0] if rest else None
    if part is None or not (part.is_dir() or part.with_suffix(".py").exists()):
        return "rvrt_jax"  # one of the public names
    return rest[0]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    module = module_of(path.relative_to(ROOT))
    assert module in LEVEL, f"{module} is new: give it a layer in {Path(__file__).name}"
    for imported in imports_of(path):
        target = own_module(imported)
        if target is not None:
            assert target in LEVEL, f"{target} is new: give it a layer in {Path(__file__).name}"
            assert LEVEL[target] >= LEVEL[module], f"{module} must not import {imported}"


@pytest.mark.parametrize("package", FREE_OF_JAX)
def test_data_and_conversion_import_no_jax(package):
    """Not even through other modules of ours: worker processes start without it."""
    for path in sorted((ROOT / "rvrt_jax" / package).rglob("*.py")):
        if path.name == "__main__.py":  # an entry point, which nothing imports
            continue
        for imported in imports_of(path):
            assert imported.split(".")[0] not in JAX, f"{path} imports {imported}"
            assert own_module(imported) in (None, "errors", package), f"{path} imports {imported}"


def test_ops_import_little():
    allowed = {"jax", "einops", "rvrt_jax"} | set(sys.stdlib_module_names)
    for path in sorted((ROOT / "rvrt_jax" / "ops").glob("*.py")):
        assert {name.split(".")[0] for name in imports_of(path)} <= allowed, path
