"""Small made-up downloads in the layout of the published archives."""

import dataclasses

import cv2
import numpy as np

from rvrt_jax.data.published import DATASETS

# The published test clips, listed by hand.
REDS4 = ["000", "011", "015", "020"]
DVD10 = [
    *("720p_240fps_2", "IMG_0003", "IMG_0021", "IMG_0030", "IMG_0031", "IMG_0032"),
    *("IMG_0033", "IMG_0037", "IMG_0039", "IMG_0049"),
]
REDS_CLIPS = ["000", "001", "011", "015", "020", "021"]  # of the training part
DVD_CLIPS = ["720p_240fps_1", "IMG_0001", *DVD10]


def image(*key, height, width):
    """Returns a picture that is different for every key, uint8 [h, w, 3]."""
    seed = [int.from_bytes(str(part).encode(), "big") % 2**32 for part in key]
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(frame, suffix):
    return cv2.imencode(suffix, frame[..., ::-1])[1].tobytes()


def _clip(files, folder, names, *, suffix=".png", key=None, size=(40, 52)):
    for name in names:
        frame = image(key or folder, name, height=size[0], width=size[1])
        files[f"{folder}/{name}{suffix}"] = encoded(frame, suffix)


def reds(frames=3):
    """REDS's train_sharp, val_sharp and their bicubic copies."""
    files = {}
    for part, clips in (("train", REDS_CLIPS), ("val", ["000", "001"])):
        for clip in clips:
            names = [f"{k:08d}" for k in range(frames)]
            _clip(files, f"{part}/{part}_sharp/{clip}", names)
            _clip(files, f"{part}/{part}_sharp_bicubic/X4/{clip}", names, size=(10, 13))
    return files


def vimeo():
    files = {}
    for clip in ("00001/0001", "00001/0002", "00002/0001", "00003/0009"):
        names = [f"im{k}" for k in range(1, 8)]
        _clip(files, f"vimeo_septuplet/sequences/{clip}", names)
        for folder in ("vimeo_septuplet_matlabLRx4", "vimeo_septuplet_BDLRx4"):
            _clip(files, f"{folder}/sequences/{clip}", names, size=(10, 13))
    files["vimeo_septuplet/sep_trainlist.txt"] = b"00001/0001\n00002/0001\n"
    files["vimeo_septuplet/sep_testlist.txt"] = b"00001/0002\n"
    return files


def dvd(frames=3):
    files = {}
    for clip in DVD_CLIPS:
        names = [f"{k:05d}" for k in range(frames)]
        for stream in ("GT", "input"):
            folder = f"DeepVideoDeblurring_Dataset/quantitative_datasets/{clip}/{stream}"
            _clip(files, folder, names, suffix=".jpg")
    return files


def gopro():
    files = {}
    for part, clip, first in (
        ("train", "GOPR0372_07_00", 47),
        ("train", "GOPR0372_07_01", 549),
        ("test", "GOPR0384_11_00", 1),
    ):
        names = [f"{k:06d}" for k in range(first, first + 3)]
        for stream in ("sharp", "blur", "blur_gamma"):
            _clip(files, f"GOPRO_Large/{part}/{clip}/{stream}", names)
    return files


def davis():
    files = {"DAVIS/ImageSets/2017/train.txt": b"bear\n"}
    for clip in ("bear", "bmx-bumps"):
        names = [f"{k:05d}" for k in range(3)]
        _clip(files, f"DAVIS/JPEGImages/480p/{clip}", names, suffix=".jpg")
        _clip(files, f"DAVIS/Annotations/480p/{clip}", names)
    return files


def test_set(name, clips, *, copies=("GT",), prefix=""):
    files = {}
    for clip in clips:
        for copy in copies:
            size = (10, 13) if "x4" in copy else (40, 52)
            _clip(files, f"{name}/{copy}/{clip}", ["000", "001", "002"], size=size)
    return files


DOWNLOADS = {
    "reds": reds,
    "reds4": reds,
    "vimeo": vimeo,
    "dvd": dvd,
    "dvd10": dvd,
    "gopro": gopro,
    "gopro11": gopro,
    "davis": davis,
    "davis_test": davis,
    "vid4": lambda: test_set("Vid4", ["calendar", "city"], copies=("GT", "BIx4", "BDx4")),
    "udm10": lambda: test_set("UDM10", ["band", "lake"], copies=("GT", "BDx4")),
    "set8": lambda: test_set("Set8", ["rafting", "tractor"], copies=(".",)),
}

# What the made-up downloads hold, in the place of what the real ones do: clips, frames.
COUNTS = {
    ("reds", "train"): (4, 12),
    ("reds4", "test"): (4, 12),
    ("vimeo", "train"): (2, 0),
    ("vimeo", "test"): (1, 0),
    ("dvd", "train"): (2, 6),
    ("dvd10", "test"): (10, 30),
    ("gopro", "train"): (2, 6),
    ("gopro11", "test"): (1, 3),
    ("davis", "train"): (2, 6),
    ("davis_test", "test"): (2, 0),
    ("vid4", "test"): (2, 0),
    ("udm10", "test"): (2, 0),
    ("set8", "test"): (2, 0),
}


def small_counts(monkeypatch):
    """Makes the table of published sets expect what the made-up downloads hold."""
    for name, data in list(DATASETS.items()):
        splits = {}
        for split, wanted in data.splits.items():
            clips, frames = COUNTS[name, split]
            length = 3 if wanted.length == 100 else wanted.length
            splits[split] = dataclasses.replace(
                wanted, clips=clips, frames=frames, length=length, shortest=1
            )
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(data, splits=splits))


def unpack(files, folder):
    """Writes files into a folder; returns it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
