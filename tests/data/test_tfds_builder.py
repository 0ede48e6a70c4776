"""The builders of the published sets, on small made-up downloads in the published layouts."""

import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import archives, imported

from rvrt_jax.data import published, records
from rvrt_jax.data.degrade import bicubic_down, blur_down
from rvrt_jax.data.prepare import tfds_builder
from rvrt_jax.data.prepare.__main__ import main
from rvrt_jax.errors import UserError

# Clips of every set, listed by hand.
CLIPS = {
    ("reds", "train"): ["001", "021", "240", "241"],
    ("reds4", "test"): ["000", "011", "015", "020"],
    ("vimeo", "train"): ["00001/0001", "00002/0001"],
    ("vimeo", "test"): ["00001/0002"],
    ("dvd", "train"): ["720p_240fps_1", "IMG_0001"],
    ("dvd10", "test"): sorted(archives.DVD10),
    ("gopro", "train"): ["GOPR0372_07_00", "GOPR0372_07_01"],
    ("gopro11", "test"): ["GOPR0384_11_00"],
    ("davis", "train"): ["bear", "bmx-bumps"],
    ("davis_test", "test"): ["bear", "bmx-bumps"],
    ("vid4", "test"): ["calendar", "city"],
    ("udm10", "test"): ["band", "lake"],
    ("set8", "test"): ["rafting", "tractor"],
}
# Where the files of a clip lie: sharp, degraded.
PLACES = {
    "gopro": "GOPRO_Large/train/{}/sharp GOPRO_Large/train/{}/blur",
    "gopro11": "GOPRO_Large/test/{}/sharp GOPRO_Large/test/{}/blur",
    "dvd": "*/quantitative_datasets/{}/GT */quantitative_datasets/{}/input",
    "dvd10": "*/quantitative_datasets/{}/GT */quantitative_datasets/{}/input",
    "reds": "train/train_sharp/{} train/train_sharp_bicubic/X4/{}",
    "reds4": "train/train_sharp/{} train/train_sharp_bicubic/X4/{}",
    "vimeo": "vimeo_septuplet/sequences/{} vimeo_septuplet_matlabLRx4/sequences/{}",
    "davis": "DAVIS/JPEGImages/480p/{} -",
    "davis_test": "DAVIS/JPEGImages/480p/{} -",
    "vid4": "Vid4/GT/{} Vid4/BIx4/{}",
    "udm10": "UDM10/GT/{} UDM10/BDx4/{}",
    "set8": "Set8/{} -",
}


pytestmark = pytest.mark.usefixtures("small_counts")


@pytest.fixture
def small_counts(monkeypatch):
    """The table expects what the made-up downloads hold."""
    archives.small_counts(monkeypatch)


def pictures(folder: Path, pattern: str) -> np.ndarray:
    """Reads the images of a folder with OpenCV, in the order of their names."""
    (found,) = folder.glob(pattern)
    files = sorted(found.iterdir(), key=lambda file: file.name)
    return np.stack([cv2.imread(str(file))[..., ::-1] for file in files])


def run(name, source, output, *more) -> int:
    return main([name, "--source", str(source), "--output", str(output), *more])


@pytest.mark.parametrize("name", list(archives.DOWNLOADS))
def test_every_set_is_prepared_from_its_download(name, tmp_path, capsys):
    source = archives.unpack(archives.DOWNLOADS[name](), tmp_path / "download")
    data = published.DATASETS[name]
    kind = next((kind for kind in ("bicubic", "blur_down") if kind in data.lq), None)
    if name == "udm10":  # of which only the BD copy lies there
        kind = "blur_down"
    more = [] if data.needs_lq or kind is None else ["--lq", kind]
    assert run(name, source, tmp_path / "data", *more) == 0
    out = capsys.readouterr().out
    gt_place, lq_place = PLACES[name].split()
    for split in data.splits:
        pairs = records.load(tmp_path / "data", name, split, lq=bool(data.lq))
        assert [gt.name for gt, _ in pairs] == CLIPS[name, split]
        frames = sum(gt.frames for gt, _ in pairs)
        assert f"{split}: {len(pairs)} clips, {frames} frames" in out
        for gt, lq in pairs[:3]:
            if gt.name.startswith("24"):  # REDS's validation clips, renumbered
                continue
            truth = pictures(source, gt_place.format(gt.name))
            np.testing.assert_array_equal(gt.read(0, gt.frames), truth)
            assert (gt.frames, gt.height, gt.width) == truth.shape[:3]
            if lq is not None:
                small = pictures(source, lq_place.format(gt.name))
                np.testing.assert_array_equal(lq.read(0, 9, 2), small[::2])
                assert (lq.frames, lq.height, lq.width) == small.shape[:3]
    assert not list(tmp_path.glob("data/**/*incomplete*")) and not list(tmp_path.glob("data/down*"))


def test_reds_renumbers_its_validation_clips_and_leaves_reds4_out(tmp_path):
    source = archives.unpack(archives.reds(), tmp_path / "download")
    tfds_builder.prepare("reds", source, tmp_path / "data")
    clips = {gt.name: gt for gt, _ in records.load(tmp_path / "data", "reds", "train", lq=False)}
    assert not set(archives.REDS4) & set(clips)
    truth = pictures(source, "val/val_sharp/001")
    np.testing.assert_array_equal(clips["241"].read(1, 3), truth[1:])


@pytest.mark.parametrize("deeper", [".", "train/train_sharp/.."])
def test_archives_need_no_unpacking(tmp_path, deeper):
    """Also from a folder within the download, or an archive itself."""
    files = {name: content for name, content in archives.reds().items() if "bicubic" not in name}
    archive = tmp_path / "download/train_sharp.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as output:
        for name, content in files.items():
            output.writestr(name, content)
        output.writestr("__MACOSX/train/train_sharp/000/._00000000.png", b"junk")
    tfds_builder.prepare("reds", archive.parent, tmp_path / "data")
    tfds_builder.prepare("reds4", archive, tmp_path / "data")
    unpacked = archives.unpack(files, tmp_path / "unpacked")
    tfds_builder.prepare("reds4", unpacked / deeper, tmp_path / "again")
    for name, folder in (("reds4", "data"), ("reds4", "again"), ("reds", "data")):
        split = "train" if name == "reds" else "test"
        gt, _ = records.load(tmp_path / folder, name, split, lq=False)[1]
        assert gt.name == {"reds": "021", "reds4": "011"}[name]
        truth = pictures(unpacked, f"train/train_sharp/{gt.name}")
        np.testing.assert_array_equal(gt.read(0, 3), truth)


@pytest.mark.parametrize("kind", ["bicubic", "blur_down"])
def test_lr_can_be_made_while_preparing(tmp_path, kind):
    source = archives.unpack(archives.vimeo(), tmp_path / "download")
    assert run("vimeo", source, tmp_path / "data", "--make-lq", kind) == 0
    ((gt, lq),) = records.load(tmp_path / "data", "vimeo", "test", lq=True)
    degrade = {"bicubic": bicubic_down, "blur_down": blur_down}[kind]
    np.testing.assert_array_equal(lq.read(0, 7), degrade(gt.read(0, 7)))


def broken(tmp_path, name, change, capsys, *more):
    """Returns what is said about a download after `change`; nothing may be written."""
    files = archives.DOWNLOADS[name]()
    change(files)
    source = archives.unpack(files, tmp_path / "download")
    assert run(name, source, tmp_path / "data", *more) == 1
    assert not list(tmp_path.glob("data/**/dataset_info.json"))
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def rename(files, old, new):
    for name in [name for name in files if old in name]:
        files[name.replace(old, new)] = files.pop(name)


def test_all_broken_images_are_named_at_once(tmp_path, capsys):
    def change(files):
        cut = "train/train_sharp/001/00000001.png"
        files[cut] = files[cut][:-20]
        files["train/train_sharp/021/00000000.png"] = b""
        files["val/val_sharp/000/00000002.png"] = b"not an image"
        frame = archives.image("odd", height=38, width=52)
        files["val/val_sharp/001/00000001.png"] = archives.encoded(frame, ".png")
        flipped = bytearray(files["train/train_sharp/021/00000002.png"])
        flipped[len(flipped) // 2] ^= 4
        files["train/train_sharp/021/00000002.png"] = bytes(flipped)

    message = broken(tmp_path, "reds", change, capsys)
    for part in (
        "001/00000001.png (",
        "021/00000000.png is empty",
        "000/00000002.png (",
        "val_sharp/001/00000001.png is 52x38; 52x40 goes with",
        "021/00000002.png (",
    ):
        assert part in message
    assert message.count("\n  - ") == 5


@pytest.mark.parametrize(
    ("name", "change", "messages"),
    [
        ("reds", lambda f: rename(f, "train_sharp/", "x/"), ["2 clips, 240 to 241", "4 are exp"]),
        ("reds4", lambda f: rename(f, "train_sharp/015", "x/015"), ["no frames of 015", "3 clips"]),
        ("vimeo", lambda f: f.pop("vimeo_septuplet/sep_trainlist.txt"), ["sep_trainlist.txt"]),
        (
            "vimeo",
            lambda f: f.pop("vimeo_septuplet/sequences/00002/0001/im4.png"),
            ["train: 7 frames are expected, but there are in 00002/0001 6."],
        ),
        ("gopro", lambda f: rename(f, "/sharp/", "/"), ["no image lies", "folders of images"]),
        (
            "dvd",
            lambda f: f.pop(
                "DeepVideoDeblurring_Dataset/quantitative_datasets/IMG_0001/input/00001.jpg"
            ),
            ["IMG_0001: 3 sharp, but 2 degraded"],
        ),
        (
            "dvd",
            lambda f: rename(f, "IMG_0001/input", "IMG_0001/inputs"),
            ["IMG_0001: 3 sharp, but 0 degraded"],
        ),
        ("davis", lambda f: rename(f, "480p/bear", "1080p/bear"), ["1 clips", "2 are expected"]),
        ("set8", lambda f: rename(f, ".png", ".txt"), ["no image among 6 files"]),
        (
            "set8",
            lambda f: f.update({f"Set8/GT/rafting/00{k}.png": b"x" for k in range(3)}),
            ["found twice", "rafting, in "],
        ),
    ],
)  # fmt: skip
def test_a_wrong_layout_gives_a_readable_report(tmp_path, capsys, name, change, messages):
    text = broken(tmp_path, name, change, capsys)
    for message in [*messages, "Nothing was written", "Expected: "]:
        assert message in text


def test_a_folder_level_too_many_is_reported(tmp_path, capsys):
    text = broken(tmp_path, "vid4", lambda files: rename(files, "Vid4/GT/", "Vid4/GT/all/"), capsys)
    assert "folders of images, such as" in text and "Vid4/GT/<clip>/<frame>" in text


def test_lr_of_another_size_is_reported(tmp_path, capsys):
    def change(files):
        frame = archives.image("odd", height=20, width=26)
        files["Vid4/BIx4/city/001.png"] = archives.encoded(frame, ".png")

    text = broken(tmp_path, "vid4", change, capsys, "--lq", "bicubic")
    assert "BIx4/city/001.png is 26x20; 13x10 goes with" in text


def test_missing_clips_can_be_done_without(tmp_path, capsys):
    files = {name: content for name, content in archives.reds().items() if "val" not in name}
    source = archives.unpack(files, tmp_path / "download")
    assert run("reds", source, tmp_path / "data", "--partial") == 0
    assert "train: 2 clips, 6 frames" in capsys.readouterr().out


def test_clips_of_another_set_are_never_taken(tmp_path, capsys):
    """DAVIS's test-dev clips come in a folder of the same name as the training ones."""

    def change(files):
        rename_copy = {k.replace("480p/bear", "480p/aerobatics"): v for k, v in files.items()}
        files.update(rename_copy)

    text = broken(tmp_path, "davis", change, capsys, "--partial")
    assert "3 clips, aerobatics to bmx-bumps; 2 are expected. Keep the clips of other" in text


def test_sources_that_cannot_serve(tmp_path, capsys, monkeypatch):
    assert run("set8", tmp_path / "nowhere", tmp_path / "data") == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    (tmp_path / "download").mkdir()
    (tmp_path / "download/train_sharp.zip").write_bytes(b"PK half")
    assert run("reds", tmp_path / "download", tmp_path / "data") == 1
    assert "train_sharp.zip is not a whole .zip archive" in capsys.readouterr().err
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar/Set8.tar.gz").write_bytes(b"")
    assert run("set8", tmp_path / "tar", tmp_path / "data") == 1
    assert "unpack" in capsys.readouterr().err
    source = archives.unpack(archives.DOWNLOADS["set8"](), tmp_path / "whole")
    usage = shutil.disk_usage(tmp_path)._replace(free=9)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        assert run("set8", source, tmp_path / "data") == 1
    assert "GB are needed" in capsys.readouterr().err
    assert run("set8", source, tmp_path / "data") == 0
    assert run("set8", source, tmp_path / "data") == 1
    assert "is there already" in capsys.readouterr().err


def test_large_sets_become_several_shards_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builder, "SHARD_BYTES", 3000)
    source = archives.unpack(archives.vimeo(), tmp_path / "download")
    folder = tfds_builder.prepare("vimeo", source, tmp_path / "data")
    assert len(list(folder.glob("*-train.array_record*"))) == 2
    for gt, _ in records.load(tmp_path / "data", "vimeo", "train", lq=False):
        truth = pictures(source, f"vimeo_septuplet/sequences/{gt.name}")
        np.testing.assert_array_equal(gt.read(2, 7, 2), truth[2:7:2])


def test_a_set_that_is_not_there_or_not_whole(tmp_path):
    with pytest.raises(UserError, match=r"(?s)train_sharp.zip.*data.prepare reds --source"):
        records.load(tmp_path, "reds", "train", lq=False)
    source = archives.unpack(archives.DOWNLOADS["vid4"](), tmp_path / "download")
    folder = tfds_builder.prepare("vid4", source, tmp_path)
    with pytest.raises(UserError, match="no degraded frames.*bicubic or blur_down"):
        records.load(tmp_path, "vid4", "test", lq=True)
    with pytest.raises(UserError, match="no split 'train'; it has test"):
        records.load(tmp_path, "vid4", "train", lq=False)
    next(folder.glob("*.array_record*")).unlink()
    with pytest.raises(UserError, match="not whole"):
        records.load(tmp_path, "vid4", "test", lq=False)


def test_neither_tensorflow_nor_jax_is_asked_for():
    loaded = imported.packages_of("rvrt_jax.data.prepare.tfds_builder", "rvrt_jax.data.records")
    assert "tensorflow_datasets" in loaded and not loaded & {"tensorflow", "jax"}
