"""Rename and transpose between a PyTorch state dict and a Flax parameter tree, strictly.

A `Table` says it once and serves both ways: each `Row` pairs a state-dict key with a parameter
path, written as templates with the same placeholders (`{i}` is a number, `{branch}` and
`{direction}` are as in `_PLACEHOLDERS`), and names the change of array layout. Every key is used
once, every parameter is filled once, or one error lists all that is wrong.

Paths are strings such as "extract/rstb_0/layer_1/attn/qkv/kernel"; arrays are numpy's.
"""

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from rvrt_jax.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]  # by key or path

_PLACEHOLDERS = {"branch": r"(?:backward|forward)_[12]", "direction": r"backward|forward"}


class Layout(NamedTuple):
    """How an array is stored in PyTorch and how in Flax."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


LAYOUTS = {
    "same": Layout(lambda x: x, lambda x: x),
    # (out, in) <-> [in, out]
    "dense": Layout(lambda x: x.T, lambda x: x.T),
    # (out, in/groups, kh, kw) <-> [kh, kw, in/groups, out]
    "conv2d": Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)),
    # (out, in/groups, 1, kh, kw) <-> [kh, kw, in/groups, out]
    "conv3d": Layout(
        lambda x: x[:, :, 0].transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)[:, :, None]
    ),
}


class Row(NamedTuple):
    """One array or family of arrays: state-dict key, parameter path, name of its `Layout`."""

    key: str
    path: str
    layout: str


class Buffer(NamedTuple):
    """A constant that PyTorch stores, which may be there or not and is not a parameter.

    Written back beside each key that matches `beside`.
    """

    key: str
    beside: str
    value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Table:
    """All keys of one model."""

    rows: tuple[Row, ...]
    buffers: tuple[Buffer, ...] = ()


@dataclasses.dataclass(frozen=True)
class Family:
    """How checkpoints of one network are recognised, and which key fills which parameter.

    mark: a key that each of them has, and none of the families listed before. table: from the
    network's fields to its key table. fields: from the shapes by key to the fields that they show.
    shown_by_shapes: whether these are all the fields that matter.
    """

    mark: str
    table: Callable[[Mapping], Table]
    fields: Callable[[Shapes], dict]
    shown_by_shapes: bool = False


def module(key: str, path: str, layout: str) -> tuple[Row, Row]:
    """Returns the rows of a convolution, a linear layer, or (layout "same") a LayerNorm."""
    weight = "scale" if layout == "same" else "kernel"
    return (
        Row(f"{key}.weight", f"{path}/{weight}", layout),
        Row(f"{key}.bias", f"{path}/bias", "same"),
    )


def to_params(
    table: Table, state: Mapping[str, np.ndarray], shapes: Shapes
) -> dict[str, np.ndarray]:
    """Returns the parameters by path, float32, from a state dict.

    shapes: the shape of every parameter of the model, by path; it decides what is complete.
    Buffers must have their shape; one whose values are not what the network computes with is
    warned about. Raises UserError with every missing, unexpected and misshapen key.
    """
    weights = without_buffers(table, state)
    sources: dict[str, str] = {}  # parameter path -> the key that fills it
    params, unexpected, misshapen = {}, [], _misshapen_buffers(table, state)
    for key, array in weights.items():
        path, layout = to_path(table, key)
        if path is None or path not in shapes:
            unexpected.append(key)
        elif path in sources:
            unexpected.append(f"{key}: {path} is filled by {sources[path]}")
        else:
            sources[path] = key
            shape = _torch_shape(layout, shapes[path])
            if array.shape == shape:
                array = LAYOUTS[layout].to_flax(array)
                params[path] = np.ascontiguousarray(array, dtype=np.float32)
            else:
                misshapen.append(f"{key}: {array.shape}, expected {shape}")
    unfilled = [path for path in shapes if path not in sources]
    missing = [_to_key(table, path)[0] or f"(any key for {path})" for path in unfilled]
    _raise_if_any(missing=missing, unexpected=unexpected, misshapen=misshapen)
    _warn_of_other_buffers(table, state)
    return params


def to_path(table: Table, key: str) -> tuple[str | None, str]:
    """Returns the parameter path that a key fills and the layout's name; None for no path."""
    return translate(((row.key, row.path, row.layout) for row in table.rows), key)


def check_shapes(params: Mapping[str, np.ndarray], shapes: Shapes) -> None:
    """Raises UserError with every missing, unexpected and misshapen path of `params`."""
    common = [path for path in params if path in shapes]
    _raise_if_any(
        missing=[path for path in shapes if path not in params],
        unexpected=[path for path in params if path not in shapes],
        misshapen=[
            f"{path}: {params[path].shape}, expected {shapes[path]}"
            for path in common
            if params[path].shape != shapes[path]
        ],
    )


def to_state(table: Table, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the state dict, buffers included, of parameters given by path.

    Raises UserError with every path that the table does not know.
    """
    state: dict[str, np.ndarray] = {}
    unknown = []
    for path, array in params.items():
        key, layout = _to_key(table, path)
        if key is None:
            unknown.append(path)
            continue
        state[key] = np.ascontiguousarray(LAYOUTS[layout].to_torch(np.asarray(array)))
    if unknown:
        raise UserError(f"{len(unknown)} parameters have no key: " + "\n  ".join(["", *unknown]))
    return state | buffers(table, state)


def buffers(table: Table, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the buffers that belong beside the given state-dict keys."""
    found = {}
    for key in keys:
        for buffer in table.buffers:
            if match := _pattern(buffer.beside).fullmatch(key):
                found[buffer.key.format(**match.groupdict())] = buffer.value
    return found


def without_buffers(table: Table, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `state` less the keys that are buffers."""
    return {key: array for key, array in state.items() if _buffer(table, key) is None}


def count(shapes: Shapes, pattern: str) -> int:
    """Returns how many values the group of `pattern` takes among the keys."""
    return len({found[1] for key in shapes if (found := re.fullmatch(pattern, key))})


def nest(flat: Mapping[str, np.ndarray]) -> dict:
    """Turns {"a/b": x} into {"a": {"b": x}}."""
    tree: dict = {}
    for path, array in flat.items():
        *parents, leaf = path.split("/")
        functools.reduce(lambda node, name: node.setdefault(name, {}), parents, tree)[leaf] = array
    return tree


def flatten(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """Turns {"a": {"b": x}} into {"a/b": x}."""
    flat = {}
    for name, node in tree.items():
        path = f"{prefix}{name}"
        flat |= flatten(node, f"{path}/") if isinstance(node, Mapping) else {path: node}
    return flat


@functools.cache
def _pattern(template: str) -> re.Pattern:
    parts = re.split(r"\{(\w+)\}", template)
    for i, part in enumerate(parts):
        parts[i] = f"(?P<{part}>{_PLACEHOLDERS.get(part, r'[0-9]+')})" if i % 2 else re.escape(part)
    return re.compile("".join(parts))


def _to_key(table: Table, path: str) -> tuple[str | None, str]:
    """Returns the key of a parameter and the layout's name; None for no key."""
    return translate(((row.path, row.key, row.layout) for row in table.rows), path)


def translate(names: Iterable[tuple[str, str, str]], name: str) -> tuple[str | None, str]:
    """Returns the other name and the layout of the first triple whose template fits `name`.

    names: (template, template of the other name, layout). Returns (None, "same") if none fits.
    """
    for template, other, layout in names:
        if match := _pattern(template).fullmatch(name):
            return other.format(**match.groupdict()), layout
    return None, "same"


def _buffer(table: Table, key: str) -> Buffer | None:
    return next((b for b in table.buffers if _pattern(b.key).fullmatch(key)), None)


def _misshapen_buffers(table: Table, state: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    for key, array in state.items():
        buffer = _buffer(table, key)
        if buffer and buffer.value.shape != array.shape:
            found.append(f"{key}: {array.shape}, expected {buffer.value.shape}")
    return found


def _warn_of_other_buffers(table: Table, state: Mapping[str, np.ndarray]) -> None:
    others = []
    for key, array in state.items():
        buffer = _buffer(table, key)
        if buffer and not np.allclose(array.astype(np.float64), buffer.value, atol=1e-3):
            others.append(key)
    if others:
        warnings.warn(
            f"{len(others)} buffers of the checkpoint differ from the constants the network "
            f"computes with and are not used: {', '.join(others[:4])}",
            stacklevel=3,
        )


def _torch_shape(layout: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return LAYOUTS[layout].to_torch(np.broadcast_to(np.float32(0), shape)).shape


def _raise_if_any(**problems: list[str]) -> None:
    if any(problems.values()):
        counts = ", ".join(f"{len(keys)} {problem}" for problem, keys in problems.items())
        lines = [f"  {problem}: {key}" for problem, keys in problems.items() for key in keys]
        raise UserError("\n".join([f"the keys do not fit the model: {counts}.", *lines]))
