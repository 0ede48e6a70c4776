"""Read and write PyTorch `.pth` files without PyTorch.

`read` takes the zip format (PyTorch 1.6 and later) and the legacy one. The pickle inside a
`.pth` can run any code when it is loaded naively; here it may name nothing but tensors, their
storages, and `OrderedDict`. The formats are those of `torch.save`, found from files it wrote.
"""

import dataclasses
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import BinaryIO

import ml_dtypes
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.files import replacing

WRAPPERS = ("params", "params_ema", "state_dict")

_STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_STORAGE_NAMES = {dtype: name for name, dtype in _STORAGES.items()}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
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
    OSError,  # a seek to where an archive says, far outside
    OverflowError,
    NotImplementedError,  # zipfile's, for versions and methods of archives it does not know
    RuntimeError,  # zipfile's, for an encrypted archive
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def read(path: str | os.PathLike, *, entry: str | None = None) -> dict[str, np.ndarray]:
    """Returns the state dict of a `.pth` file, arrays in the stored dtype.

    The state dict may be the whole file or lie under one of `WRAPPERS`; `entry` names the one
    to take and is needed when there are several (training checkpoints keep `params` and
    `params_ema`). Raises UserError for a file that is damaged, not a checkpoint, or names
    anything but tensors; FileNotFoundError where there is no file.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        try:
            content = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
            state = {key: _array(value) for key, value in _select(content, entry).items()}
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except _DAMAGE as error:
            raise UserError(
                f"{path}: cut short or damaged, {os.path.getsize(path)} bytes "
                f"({type(error).__name__}: {error}). Fetch the file again."
            ) from error
    return state


def write(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> None:
    """Writes `state` under the key `params` as a file for `torch.load(weights_only=True)`.

    The bytes depend on nothing but `state`. Raises UserError for a dtype PyTorch has no storage
    for. The file appears under its name only when complete.
    """
    arrays = {key: np.asarray(value, order="C") for key, value in state.items()}
    for key, array in arrays.items():
        if array.dtype not in _STORAGE_NAMES:
            raise UserError(f"{key} is {array.dtype}; a .pth holds {sorted(_STORAGES)}.")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        records = {
            "data.pkl": _pickle(arrays),
            "byteorder": b"little",
            **{f"data/{i}": array.tobytes() for i, array in enumerate(arrays.values())},
            "version": b"3\n",
        }
        for name, data in records.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)  # stored, dated 1980


@dataclasses.dataclass
class _Storage:
    """A flat piece of memory that tensors are views of; legacy files fill it at the end."""

    dtype: np.dtype
    size: int
    data: np.ndarray | None = None


@dataclasses.dataclass
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


_GLOBALS = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): name for name in _STORAGES},
}


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors and containers of them; refuses every other global by its name."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str):
        if (module, name) not in _GLOBALS:
            raise UserError(
                f"refused to load the global {module}.{name}: only tensors are read. Save the "
                "bare state dict with torch.save(model.state_dict(), path)."
            )
        return _GLOBALS[module, name]

    def persistent_load(self, pid) -> _Storage:
        kind, name, key, _, size, *view = pid
        if kind != "storage" or any(view):
            raise UserError(f"refused to load a pickled {kind}: only whole storages are read.")
        return self.storages.setdefault(key, _Storage(_STORAGES[name], size))


def _read_zip(file: BinaryIO):
    """Returns what the archive's `data.pkl` holds, all storages filled."""
    with zipfile.ZipFile(file) as archive:
        roots = [n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise UserError(
                f"a zip archive with {len(roots)} data.pkl, so no state dict of torch.save "
                "(a TorchScript file has to be saved again as a state dict)."
            )
        root = roots[0]
        if f"{root}byteorder" in archive.namelist():
            _check_little_endian(archive.read(f"{root}byteorder") == b"little")
        unpickler = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
        content = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.data = np.frombuffer(archive.read(f"{root}data/{key}"), storage.dtype)
    return content


def _read_legacy(file: BinaryIO):
    """Returns the fourth pickle of the stream, its storages filled from what follows."""
    file.seek(0)
    start = file.read(16)
    file.seek(0)
    if start.startswith(b"PK"):
        raise UserError("cut short: a zip archive without its end. Fetch the file again.")
    if not start.startswith(b"\x80\x02\x8a\x0a"):
        raise UserError(f"not a PyTorch checkpoint: it begins with {start!r}.")
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise UserError("a pickle, but not one of torch.save: the magic number is missing.")
    if (protocol := _Unpickler(file).load()) != _LEGACY_PROTOCOL:
        raise UserError(f"written with torch.save protocol {protocol}; 1001 is read.")
    _check_little_endian(_Unpickler(file).load()["little_endian"])
    unpickler = _Unpickler(file)
    content = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        (size,) = struct.unpack("<q", file.read(8))
        data = file.read(storage.size * storage.dtype.itemsize)
        if size != storage.size:
            raise UserError(f"storage {key} holds {size} numbers, {storage.size} announced.")
        storage.data = np.frombuffer(data, storage.dtype)
    return content


def _check_little_endian(little: bool) -> None:
    if not little:
        raise UserError("written on a big-endian machine; save it again on a little-endian one.")


def _select(content, entry: str | None) -> Mapping:
    """Returns the state dict within `content`, which may be wrapped."""
    if not isinstance(content, Mapping):
        raise UserError(f"holds a {type(content).__name__}, not a state dict.")
    wrappers = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    if entry is not None and entry not in wrappers:
        raise UserError(f"has no entry {entry!r}; it has {wrappers or 'a bare state dict'}.")
    if entry is None and len(wrappers) > 1:
        raise UserError(
            f"has {' and '.join(wrappers)}: say which with entry=, or "
            "convert it first: python -m rvrt_jax.convert FILE OUT.safetensors --entry "
            f"{wrappers[-1]}."
        )
    if entry is None and wrappers:
        entry = wrappers[0]
    state = content if entry is None else content[entry]
    others = [key for key, value in state.items() if not isinstance(value, _Tensor)]
    if others or not state:
        raise UserError(
            f"no state dict: {len(others)} of its {len(state)} entries are not tensors, "
            f"such as {others[:5]}. Weights lie at the top or under one of {WRAPPERS}."
        )
    return state


def _array(tensor: _Tensor) -> np.ndarray:
    """Copies a tensor out of its storage. The bounds are checked: a file could lie."""
    data, shape, strides = tensor.storage.data, tensor.shape, tensor.strides
    if data is None or data.size < tensor.storage.size:
        raise UserError(
            f"cut short: a storage of {tensor.storage.size} numbers has "
            f"{0 if data is None else data.size}. Fetch the file again."
        )
    if 0 in shape:
        return np.zeros(shape, data.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min(tensor.offset, *strides, *shape, 0) < 0 or last >= data.size:
        raise UserError(f"damaged: a tensor of shape {shape} reaches number {last} of {data.size}.")
    view = np.lib.stride_tricks.as_strided(
        data[tensor.offset :], shape, [s * data.itemsize for s in strides]
    )
    return np.array(view, order="C")


def _pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the pickle of {"params": OrderedDict of tensors}, storage i for the i-th array.

    Written opcode by opcode, because the pickle module writes only globals it can import.
    """
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    out = [b"\x80\x02}", _text("params"), ordered_dict, b"("]
    for i, (key, array) in enumerate(arrays.items()):
        strides = [s // array.itemsize for s in array.strides]
        out += [_text(key), b"ctorch._utils\n_rebuild_tensor_v2\n("]
        out += [b"(", _text("storage"), f"ctorch\n{_STORAGE_NAMES[array.dtype]}\n".encode()]
        out += [_text(str(i)), _text("cpu"), _int(array.size), b"tQ"]
        out += [_int(0), _ints(array.shape), _ints(strides), b"\x89", ordered_dict, b"tR"]
    out.append(b"us.")
    return b"".join(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _ints(values) -> bytes:
    return b"(" + b"".join(_int(value) for value in values) + b"t"
