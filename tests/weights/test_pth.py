import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from rvrt_jax.errors import UserError
from rvrt_jax.weights import pth

FIXTURES = Path(__file__).parents[1] / "golden" / "pth"  # written by PyTorch, see make.py there
BASE = np.arange(24, dtype=np.float32)
EXPECTED = {
    "float32": BASE.reshape(2, 3, 4) / 8,
    "float16": (BASE / 8).astype(np.float16),
    "bfloat16": (BASE / 8).astype(ml_dtypes.bfloat16),
    "float64": BASE.astype(np.float64) / 3,
    "int64": np.arange(-3, 3),
    "int32": np.arange(4, dtype=np.int32),
    "uint8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False, True]),
    "transposed": BASE.reshape(4, 6).T,
    "shared_head": BASE[:6],
    "shared_tail": BASE[6:].reshape(3, 6)[:, ::2],
    "expanded": np.repeat(BASE[2:5, None], 4, axis=1),
    "scalar": np.array(7.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.arange(3, dtype=np.float32),
}


def assert_same(state, expected):
    assert list(state) == list(expected)
    for key, array in expected.items():
        assert state[key].dtype == array.dtype, key
        assert state[key].shape == array.shape, key
        assert (state[key] == array).all(), key


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_reads_what_torch_wrote(name):
    assert_same(pth.read(FIXTURES / f"{name}.pth"), EXPECTED)
    bare = pth.read(FIXTURES / f"bare_{name}.pth")
    np.testing.assert_array_equal(bare["weight"], np.arange(6).reshape(2, 3) / 4)
    np.testing.assert_array_equal(bare["bias"], [-1, 2.5])


def test_written_files_read_back_and_hold_the_same_bytes_each_time(tmp_path):
    pth.write(tmp_path / "a.pth", EXPECTED)
    pth.write(tmp_path / "b.pth", EXPECTED)
    assert_same(pth.read(tmp_path / "a.pth"), EXPECTED)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "b.pth"]


def test_written_pickle_is_the_one_torch_writes(tmp_path):
    """What the pickles of both archives say of a tensor, read by a stand-in that records it."""

    class Recorder(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "OrderedDict":
                return dict
            return lambda *args: (f"{module}.{name}", *args)

        def persistent_load(self, pid):
            kind, storage, key, location, size = pid
            return kind, storage(), key, location, size

    def recorded(path, root):
        with zipfile.ZipFile(path) as archive, archive.open(f"{root}/data.pkl") as file:
            return Recorder(file).load()["params"]["x"], archive.read(f"{root}/version")

    pth.write(tmp_path / "x.pth", {"x": np.ones(2, np.float32)})
    ours = recorded(tmp_path / "x.pth", "archive")
    assert ours == recorded(FIXTURES / "two_entries.pth", "two_entries")
    assert ours[0][0] == "torch._utils._rebuild_tensor_v2"


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    pth.write(path, {"x": np.zeros(3, np.float32)})
    before = path.read_bytes()
    with pytest.raises(UserError, match="x is complex64"):
        pth.write(path, {"x": np.zeros(3, np.complex64)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_entry_must_be_named_when_there_are_two():
    path = FIXTURES / "two_entries.pth"
    with pytest.raises(UserError, match="has params and params_ema"):
        pth.read(path)
    np.testing.assert_array_equal(pth.read(path, entry="params")["x"], [1, 1])
    np.testing.assert_array_equal(pth.read(path, entry="params_ema")["x"], [0, 0])
    with pytest.raises(UserError, match="no entry 'state_dict'"):
        pth.read(path, entry="state_dict")


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("module", "torch.nn.modules.linear.Linear"),
        ("path", "pathlib.PurePosixPath"),
        ("script", "ReLU"),
    ],
)
def test_refuses_other_globals_by_name(name, refused):
    with pytest.raises(UserError, match=rf"{name}\.pth: refused to load the global .*{refused}"):
        pth.read(FIXTURES / f"{name}.pth")


def test_runs_no_code_of_the_file(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"params": Evil()}, 2))
    with pytest.raises(UserError, match="refused to load the global"):
        pth.read(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_every_truncation_is_a_clear_error(name, tmp_path):
    data = (FIXTURES / f"{name}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for length in [0, 1, 2, *range(3, len(data), 41), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut\.pth: "):
            pth.read(path)


def test_damaged_bytes_are_a_clear_error_or_other_numbers(tmp_path):
    rng = np.random.RandomState(0)
    path = tmp_path / "damaged.pth"
    for name in ("zip", "legacy"):
        data = np.frombuffer((FIXTURES / f"{name}.pth").read_bytes(), np.uint8)
        for _ in range(300):
            bad = data.copy()
            bad[rng.randint(len(bad), size=3)] = rng.randint(256, size=3)
            path.write_bytes(bad.tobytes())
            try:
                pth.read(path)
            except UserError as error:
                assert "damaged.pth: " in str(error)


@pytest.mark.parametrize("start", [b"<!DOCTYPE html>", b"version https://git-lfs", b"\x89PNG"])
def test_other_files_are_named_by_what_they_begin_with(start, tmp_path):
    path = tmp_path / "page.pth"
    path.write_bytes(start + bytes(1000))
    with pytest.raises(UserError, match="not a PyTorch checkpoint: it begins with"):
        pth.read(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        pth.read("nowhere.pth")


def test_tensor_outside_its_storage_is_refused(tmp_path):
    """A file could claim a view far outside the data; nothing beyond it may be read."""
    good = tmp_path / "good.pth"
    pth.write(good, {"x": np.arange(4, dtype=np.float32)})
    with zipfile.ZipFile(good) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}

    def number(value):
        return b"J" + struct.pack("<i", value)

    view = number(0) + b"(" + number(4) + b"t(" + number(1) + b"t"
    pickled = records["archive/data.pkl"]
    assert pickled.count(view) == 1
    for offset, length, stride in [(1, 4, 1), (0, 5, 1), (0, 4, 2), (-1, 2, 1), (3, 4, -1)]:
        lie = number(offset) + b"(" + number(length) + b"t(" + number(stride) + b"t"
        records["archive/data.pkl"] = pickled.replace(view, lie)
        with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
            for name, data in records.items():
                archive.writestr(name, data)
        with pytest.raises(UserError, match=r"bad\.pth: damaged"):
            pth.read(tmp_path / "bad.pth")


def test_no_state_dict_inside(tmp_path):
    path = tmp_path / "odd.pth"
    for content, message in [([1, 2], "holds a list"), ({"a": 1}, "1 of its 1 entries"), ({}, "0")]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
        with pytest.raises(UserError, match=message):
            pth.read(path)
