"""What ArrayRecord says of a disk that fails is an error of the system, as of any other file."""

import functools
import os
import shutil

import numpy as np
import pytest
from helpers import archives

from rvrt_jax import files
from rvrt_jax.data import records
from rvrt_jax.data.options import DataOptions
from rvrt_jax.data.prepare import tfds_builder
from rvrt_jax.data.sampler import Sampler

OPTIONS = {"dataset": "gopro", "scale": 1, "degradation": "given", "photo_fraction": 0.0}
CROP = {"camera_fraction": 0.0, "num_frames": 3, "gt_size": 32, "tries": 1}
PREAD = "pread() failed: Input/output error; reading /data/gopro-train.array_record; at byte 108"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PAUSES", (0, 0, 0))
    archives.small_counts(monkeypatch)
    source = archives.unpack(archives.DOWNLOADS["gopro"](), tmp_path / "download")
    tfds_builder.prepare("gopro", source, tmp_path / "data")
    shutil.rmtree(tmp_path / "download")
    return tmp_path / "data"


@pytest.fixture
def sampler(root):
    return Sampler(DataOptions.read({**OPTIONS, **CROP, "root": str(root)}), seed=3)


def _failing(monkeypatch, times, *, opening=False):
    """Lets the source fail so many times; returns a list that grows with each opening."""
    opened, left, open_whole = [], iter(range(times)), records._records.__wrapped__

    class Source:
        def __init__(self, *key):
            opened.append(key)
            if opening and next(left, None) is not None:
                raise RuntimeError(PREAD)
            self.whole = open_whole(*key)

        def __getitem__(self, number):
            if not opening and next(left, None) is not None:
                raise RuntimeError(PREAD)
            return self.whole[number]

    monkeypatch.setattr(records, "_records", functools.cache(Source))
    return opened


@pytest.mark.parametrize("opening", [False, True])
def test_a_failing_disk_is_read_again(sampler, monkeypatch, opening):
    expected = sampler.map(0)
    opened = _failing(monkeypatch, 3, opening=opening)
    found = sampler.map(0)
    for key in ("lq", "gt"):
        np.testing.assert_array_equal(found[key], expected[key])
    assert len(opened) == 4  # anew after each failure: a file handle may be stale for good


@pytest.mark.parametrize("opening", [False, True])
def test_a_lasting_failure_names_the_file(sampler, root, monkeypatch, opening):
    opened = _failing(monkeypatch, 99, opening=opening)
    with pytest.raises(OSError, match="pread.. failed: Input/output error; reading /data/gopro-tr"):
        sampler.map(0)
    assert len(opened) == 4
    ((gt, _), *_) = records.load(root, "gopro", "train", lq=True)
    with pytest.raises(OSError, match=rf"{gt.folder}, train: records cannot be read: pread"):
        gt.read(0, 1)


def test_the_errors_of_array_record_itself(root):
    ((gt, _), *_) = records.load(root, "gopro", "train", lq=True)
    (path,) = root.rglob("*train.array_record*")
    records._records.cache_clear()
    path.rename(path.with_name("hidden"))
    with pytest.raises(FileNotFoundError, match=rf"open\(\) failed.*{path.name}"):
        gt.read(0, 1)
    path.mkdir()
    with pytest.raises(OSError, match=rf"read\(\) failed: Is a directory; reading {path}"):
        gt.read(0, 1)
    path.rmdir()
    path.with_name("hidden").rename(path)
    assert gt.read(0, 1).shape[0] == 1
    records._records.cache_clear()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(OSError, match=rf"{gt.folder}, train: records cannot be read: ."):
        gt.read(0, 1)
