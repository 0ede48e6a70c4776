"""How the house is laid out: who may import whom, and how large rooms may grow.

Everything is read from the source; nothing is imported here.
"""

import ast
import functools
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rvrt_jax"

# What each folder or file of the package may import beside itself, `errors` and `files`.
MAY_IMPORT = {
    "errors": "",
    "files": "",
    "command_line": "",
    "packages": "",
    "parallel": "",
    "ops": "",
    "models": "ops",
    "media": "",
    "data": "media packages",
    "weights": "models packages",
    "export": "models ops weights",
    "restoration": "models media parallel",
    "web": "restoration weights media models command_line",
    "evaluation": "restoration weights data media models ops parallel",
    "training": "evaluation restoration weights data media models parallel",
    "configs": "models data training",  # training.settings, whose defaults they spell out
}
# The entry points reach everything; nothing reaches them.
ENTRY_POINTS = ("train", "eval", "rvrt_jax", "demo", "convert", "cli", "benchmarks")

FREE_OF_JAX = ("data", "media", "weights.pth", "weights.state_dict", "weights.mapping")
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}

MOST_LINES = 350
MOST_ROOT_FILES = 8


@functools.cache
def modules() -> dict[str, Path]:
    """Returns our source files by their dotted names: "rvrt_jax.ops.conv", "configs.common"."""
    files = [ROOT / "train.py", ROOT / "eval.py", *(ROOT / "configs").glob("*.py")]
    found = {}
    for path in sorted([*files, *PACKAGE.rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    """Returns the dotted names that a file imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def own_imports(module: str) -> set[str]:
    """Returns the modules of ours that a module imports: the longest part that names a file."""
    found = set()
    for name in imports_of(module):
        parts = name.split(".")
        prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        found |= {next((prefix for prefix in prefixes if prefix in modules()), module)}
    return found - {module}


def room_of(module: str) -> str:
    """Returns the room of a module: its folder in the package, or the file at a root."""
    first, *rest = module.split(".")
    return rest[0] if first == "rvrt_jax" and rest else first


@pytest.mark.parametrize("module", modules())
def test_imports_follow_the_rules(module):
    room = room_of(module)
    if room in ENTRY_POINTS:
        return
    assert room in MAY_IMPORT, f"{room} is new: say in {Path(__file__).name} what it may import"
    allowed = {room, "errors", "files", *MAY_IMPORT[room].split()}
    for imported in own_imports(module):
        assert room_of(imported) in allowed, f"{module} must not import {imported}"


def test_no_import_leads_back():
    """Not within a folder either: files can be read from the bottom up."""
    graph = {module: own_imports(module) for module in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names it


@pytest.mark.parametrize("room", FREE_OF_JAX)
def test_jax_is_not_loaded(room):
    """Not even by what they import: the worker processes of the input pipeline load them."""
    prefix = f"rvrt_jax.{room}"
    reached, todo = set(), [m for m in modules() if m == prefix or m.startswith(f"{prefix}.")]
    assert todo
    while todo:
        module = todo.pop()
        reached.add(module)
        todo += own_imports(module) - reached
    for module in reached:
        foreign = {name.split(".")[0] for name in imports_of(module)}
        assert not foreign & JAX, f"{prefix} loads {foreign & JAX} through {module}"


def test_ops_need_little():
    allowed = {"jax", "einops", "rvrt_jax"} | set(sys.stdlib_module_names)
    for module in modules():
        if room_of(module) == "ops":
            assert {name.split(".")[0] for name in imports_of(module)} <= allowed, module


def shifted_writes(tree: ast.AST) -> list[str]:
    """Returns the writes of a part of an array into another part of it: b.at[1:].set(b[:-1])."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Subscript(value=ast.Attribute(value=array, attr="at"), slice=place)
                ),
                args=values,
            ):
                own = ast.unparse(place)
            case ast.Call(func=ast.Attribute(attr=name), args=[array, *values]) if name.startswith(
                "dynamic_update"
            ):
                own = None  # its place is given by numbers, not as a slice
            case _:
                continue
        read = [n for value in values for n in ast.walk(value) if isinstance(n, ast.Subscript)]
        name = ast.unparse(array)
        if any(ast.unparse(n.value) == name and ast.unparse(n.slice) != own for n in read):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "code, count",
    [
        ("b.at[1:].set(b[:-1]).reshape(-1)", 1),
        ("b.at[:, 1:].add(2 * b[:, :-1])", 1),
        ("jax.lax.dynamic_update_slice(b, b[:3], (1, 0))", 1),
        ("b.at[:n].set(b[:n] / 2)", 0),
        ("b.at[1:].set(c[:-1])", 0),
    ],
)
def test_shifted_writes_are_found(code, count):
    assert len(shifted_writes(ast.parse(code))) == count


@pytest.mark.parametrize("module", modules())
def test_no_array_is_shifted_in_place(module):
    """With a reshape behind, compiled programs of CPUs have wrong values (xla issue 49176).

    Seen with jax 0.10.2 and 0.12.0.1: 96 of 128 elements. Concatenate the parts instead.
    """
    assert not shifted_writes(ast.parse(modules()[module].read_text()))


@pytest.mark.parametrize("module", modules())
def test_files_are_short(module):
    lines = len(modules()[module].read_text().splitlines())
    assert lines <= MOST_LINES, f"{module} has {lines} lines; is it two files?"


def test_few_files_lie_at_the_root():
    files = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(files) <= MOST_ROOT_FILES, files
