"""Read pickles of nested dictionaries of NumPy arrays, and nothing else.

A pickle can run any code when it is loaded naively. Here it may name only what NumPy needs to
rebuild an array, and stand-ins of ours take the place of each of these.
"""

import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from rvrt_jax.errors import UserError

_KINDS = "fiu"  # floating, signed and unsigned numbers; never objects


class _Type:
    """Stands in for `numpy.dtype`: its name, such as "f4", and then its byte order."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        if not isinstance(self.name, str) or self.name[:1] not in _KINDS:
            raise UserError(f"an array of type {self.name!r}; only plain numbers are read.")
        return np.dtype(self.order + self.name)


class _Array:
    """Stands in for `numpy.ndarray`: made empty, then given its shape, type and bytes."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def numpy(self) -> np.ndarray:
        _, shape, dtype, columns_first, data = self.state
        return np.frombuffer(data, dtype.numpy()).reshape(
            shape, order="F" if columns_first else "C"
        )


_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}
# What unpickling a damaged stream can raise, beside our own UserError.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    MemoryError,
    OverflowError,
    RecursionError,  # a dictionary that holds itself
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise UserError(f"refused to load the global {module}.{name}: only arrays are read.")
        return _GLOBALS[module, name]


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the dictionaries of a pickle, with read-only arrays as their leaves.

    Raises UserError for a file that is damaged or holds anything else, FileNotFoundError where
    there is none.
    """
    with open(path, "rb") as file:
        try:
            return _arrays(_Unpickler(file).load(), "")
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except _DAMAGE as error:
            raise UserError(
                f"{path}: cut short or damaged, {os.path.getsize(path)} bytes "
                f"({type(error).__name__}: {error}). Fetch the file again."
            ) from error


def _arrays(node: Any, place: str) -> Any:
    if isinstance(node, Mapping):
        return {key: _arrays(value, f"{place}/{key}") for key, value in node.items()}
    if not isinstance(node, _Array):
        raise UserError(f"holds a {type(node).__name__} at {place or 'the top'}, not an array.")
    return node.numpy()
