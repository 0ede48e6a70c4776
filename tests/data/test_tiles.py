"""Frames in tiles, and the records that hold them."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import archives

from rvrt_jax.data import records, tiles
from rvrt_jax.data.options import DataOptions
from rvrt_jax.data.prepare import convert, tfds_builder
from rvrt_jax.data.prepare.__main__ import main
from rvrt_jax.data.sampler import Sampler
from rvrt_jax.errors import UserError
from rvrt_jax.media import images

CASE = {"photo_fraction": 0.0, "camera_fraction": 0.0, "num_frames": 3, "gt_size": 32, "tries": 1}


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_crop_of_tiles_is_the_crop_of_the_frame(dtype):
    frame = noise(37, 53, 3, dtype=dtype)
    content = tiles.encode(frame, side=16)
    assert tiles.is_tiled(content) and tiles.size(content) == (37, 53)
    for y, x, h, w in ((0, 0, 37, 53), (16, 32, 16, 16), (15, 31, 18, 2), (36, 52, 1, 1)):
        found = tiles.crop(content, y, x, h, w, where="a frame")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, frame[y : y + h, x : x + w])


def test_only_the_tiles_of_a_crop_are_decoded():
    frame = noise(40, 40, 3)
    content = bytearray(tiles.encode(frame, side=16))
    whole = bytes(content)
    content[whole.rindex(b"IHDR")] ^= 255  # of the last tile
    np.testing.assert_array_equal(
        tiles.crop(bytes(content), 0, 0, 32, 32, where="f"), frame[:32, :32]
    )
    with pytest.raises(UserError, match="clip 7: tile 8 of 9 cannot be decoded"):
        tiles.crop(bytes(content), 0, 0, 33, 33, where="clip 7")


@pytest.fixture
def old_and_new(tmp_path, monkeypatch):
    """The folders of GoPro's records with whole files, of version 1.0.0, and converted ones."""
    monkeypatch.setattr(tiles, "SIDE", 16)
    archives.small_counts(monkeypatch)
    source = archives.unpack(archives.DOWNLOADS["gopro"](), tmp_path / "download")
    with monkeypatch.context() as patch:
        patch.setattr(tfds_builder, "_stored", lambda path, content: content)
        patch.setattr(tfds_builder.Frames, "VERSION", tfds.core.Version("1.0.0"))
        image = tfds.features.Image(shape=(None, None, 3))  # what they were declared as
        patch.setattr(tfds.features, "Tensor", lambda **_: image)
        old = tfds_builder.prepare("gopro", source, tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    kind = old.parent.name
    assert main(["tiles", str(tmp_path / "new" / "gopro" / kind / "1.0.0")]) == 0
    return tmp_path / "old", tmp_path / "new"


def test_records_of_both_versions_give_the_same_samples(old_and_new):
    samplers, contents = [], []
    for root in old_and_new:
        options = {**CASE, "dataset": "gopro", "root": str(root)}
        options = DataOptions.read({**options, "scale": 1, "degradation": "given"})
        samplers.append(Sampler(options, seed=3))
        ((gt, lq), *_) = records.load(root, "gopro", "train", lq=True)
        example = records.example(gt.folder, "train", 0)
        contents.append({stream: example[stream] for stream in ("gt", "lq")})
        assert gt.read(0, 3).shape == (3, gt.height, gt.width, 3) and lq is not None
    for stream in ("gt", "lq"):
        assert images.is_png(contents[0][stream]) and tiles.is_tiled(contents[1][stream])
    for index in range(6):
        a, b = (sampler.map(index) for sampler in samplers)
        for key in ("lq", "gt"):
            np.testing.assert_array_equal(a[key], b[key])


def test_a_pair_is_read_once_and_only_the_target_is_decoded(old_and_new, monkeypatch):
    options = {**CASE, "dataset": "gopro", "root": str(old_and_new[1])}
    options = DataOptions.read({**options, "scale": 1, "degradation": "given"})
    whole = Sampler(options, seed=3).map(0)
    decoded, read = [], []
    crop, opened = tiles.crop, records._records

    class Counted:
        def __init__(self, source):
            self.source = source

        def __getitem__(self, number):
            read.append(number)
            return self.source[number]

    def counting(content, *place, where):
        decoded.append(where.split(", ")[-2:])
        return crop(content, *place, where=where)

    monkeypatch.setattr(tiles, "crop", counting)
    monkeypatch.setattr(records, "_records", lambda *key: Counted(opened(*key)))
    sample = Sampler(options, seed=3, targets=slice(1, 2)).map(0)
    np.testing.assert_array_equal(sample["lq"], whole["lq"])
    np.testing.assert_array_equal(sample["gt"], whole["gt"][1:2])
    assert len(read) == len(set(read)) == 3
    assert [stream for stream, _ in decoded] == ["lq", "lq", "lq", "gt"]


def test_what_is_no_old_record_is_not_converted(tmp_path, old_and_new):
    _, new = old_and_new
    with pytest.raises(UserError, match="is no prepared set; give its folder"):
        convert.convert(tmp_path)
    (folder,) = (new / "gopro").glob("*/1.1.0")
    with pytest.raises(UserError, match="is of version 1.1.0"):
        convert.convert(folder)
    with pytest.raises(UserError, match="1.1.0 is there already"):
        convert.convert(folder.with_name("1.0.0"))


def test_jpeg_files_are_kept_as_they_are(tmp_path, monkeypatch):
    archives.small_counts(monkeypatch)
    source = archives.unpack(archives.DOWNLOADS["davis"](), tmp_path / "download")
    folder = tfds_builder.prepare("davis", source, tmp_path / "data")
    content = records.example(folder, "train", 0)["gt"]
    assert content in {path.read_bytes() for path in source.rglob("*.jpg")}
