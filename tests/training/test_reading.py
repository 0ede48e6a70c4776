"""What counts as damage of a checkpoint, and what stops a run that would otherwise fall back."""

import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rvrt_jax import files
from rvrt_jax.errors import UserError
from rvrt_jax.training import reading

TREE = {
    "kernel": np.random.default_rng(0).normal(size=(90, 90)).astype(np.float32),
    "conv": {"bias": np.arange(5, dtype=np.float32)},
}
STEP = {"step": np.int32(7)}


def _shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


ITEMS = {"params": _shapes(TREE), "rest": _shapes(STEP)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    with ocp.CheckpointManager(folder) as manager:
        manager.save(
            7,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(TREE), rest=ocp.args.StandardSave(STEP)
            ),
        )
    return folder / "7"


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    """A copy of a checkpoint, to be spoiled; reading it again does not wait."""
    monkeypatch.setattr(files, "PAUSES", (0, 0, 0))
    return shutil.copytree(written, tmp_path / "7")


def _large(folder):
    """Returns the files that tell of the arrays or hold them, by what they are."""
    params = folder / "params"
    data = [path for path in params.rglob("d/*") if path.stat().st_size > 9000]
    return [params / "_METADATA", params / "manifest.ocdbt", *params.glob("d/*"), *data]


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize("spoil", [_half, _flipped, lambda content: bytes(len(content))])
def test_broken_content_is_damage(folder, spoil):
    assert len(_large(folder)) == 4
    for path in _large(folder):
        if path.stat().st_size > 9000 and spoil is _flipped:
            continue  # without a checksum, pixels of weights cannot be told from others
        content = path.read_bytes()
        path.write_bytes(spoil(content))
        with pytest.raises(reading.Damaged):
            reading.read(folder, ITEMS)
        path.write_bytes(content)
    found = reading.read(folder, ITEMS)
    jax.tree.map(np.testing.assert_array_equal, found, {"params": TREE, "rest": STEP})


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (TREE | {"ahead": np.zeros(3, np.float32)}, "params/ahead: nothing instead of (3,)"),
        ({"kernel": TREE["kernel"]}, "params/conv/bias: (5,) instead of nothing"),
        (TREE | {"conv": {"bias": np.zeros(6, np.float32)}}, "bias: (5,) instead of (6,)"),
        (TREE | {"kernel": {"a": np.zeros(2, np.float32)}}, "kernel: (90, 90) instead of nothing"),
    ],
    ids=["more", "fewer", "another shape", "a tree"],
)
def test_another_structure_is_no_damage(folder, params, said):
    with pytest.raises(UserError, match=rf"does not fit this run.*{re.escape(said)}.*--workdir"):
        reading.read(folder, ITEMS | {"params": _shapes(params)})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 5 GiB"),
        FileNotFoundError(2, "No such file or directory", "a"),
        RuntimeError("something else"),
        ValueError("RESOURCE_EXHAUSTED: too many open files"),
        ValueError("FAILED_PRECONDITION: read failed [OS error 21: EISDIR Is a directory]"),
    ],
)
def test_what_tells_of_no_damage_stops_with_the_reason(folder, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(reading, "_read_item", fail)
    reason = re.escape(str(error))
    with pytest.raises(UserError, match=rf"7 cannot be read \(.*{reason}.*nothing was changed"):
        reading.read(folder, ITEMS)


def test_a_missing_item_is_no_damage(folder):
    shutil.rmtree(folder / "rest")
    with pytest.raises(UserError, match=r"cannot be read \(FileNotFoundError: .*rest not found"):
        reading.read(folder, ITEMS)


def test_errors_of_the_system_are_tried_again(folder, monkeypatch):
    whole, left = reading._read_item, SimpleNamespace(count=3)

    def now_and_then(*arguments):
        left.count -= 1
        if left.count >= 0:
            raise ValueError("UNAVAILABLE: Error reading: [OS error 116: ESTALE Stale file handle]")
        return whole(*arguments)

    monkeypatch.setattr(reading, "_read_item", now_and_then)
    assert reading.read(folder, ITEMS)["rest"] == STEP
