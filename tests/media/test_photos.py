"""Photos with an orientation tag, and images with opacity."""

import io
import logging
import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers.films import make, smooth
from PIL import Image, ImageOps

from rvrt_jax.media import exif, images
from rvrt_jax.media.frames import open_frames, open_writer

ORIENTATION = 0x0112
# Red, green and blue corners, so that every one of the eight poses looks different.
CORNERS = np.zeros((3, 5, 3), np.uint8)
CORNERS[0, 0], CORNERS[0, 4], CORNERS[2, 0] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
PHOTO = CORNERS.repeat(16, 0).repeat(16, 1)  # large enough for JPEG to keep the colours


def tagged(orientation, kind, *, image=PHOTO):
    """Returns a file as Pillow writes it, and the image as Pillow shows it."""
    notes = Image.Exif()
    notes[0x010F] = "A maker"  # comes before the orientation
    notes[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, exif=notes, quality=95)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    return file.getvalue(), np.asarray(shown.convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_come_upright(tmp_path, kind, orientation):
    path = tmp_path / f"a.{kind.lower()}"
    content, shown = tagged(orientation, kind)
    path.write_bytes(content)
    assert shown.shape == ((80, 48, 3) if orientation > 4 else (48, 80, 3))
    info = images.probe(path)
    assert (info.height, info.width) == shown.shape[:2]
    # Decoders round lossy files differently; corners differ by 200.
    assert np.abs(images.read(path).astype(int) - shown).max() < 40
    source = open_frames(path)
    assert source.read_all().shape == (1, *shown.shape)


def test_a_folder_may_hold_photos_taken_upright_and_on_the_side(tmp_path):
    content, shown = tagged(6, "PNG")
    (tmp_path / "1.png").write_bytes(content)
    Image.fromarray(shown).save(tmp_path / "2.png")
    first, second = open_frames(tmp_path)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order):
    entry = struct.pack(f"{order}HHIHH", ORIENTATION, 3, 1, 8, 0)
    tiff = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, 1) + entry
    chunk = b"eXIf" + tiff
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(tiff)) + chunk
    assert exif.orientation(png + struct.pack(">I", zlib.crc32(chunk))) == 8


def test_a_broken_tag_is_passed_over():
    """Whatever stands there, the picture is whole."""
    content, _ = tagged(6, "JPEG")
    start = content.index(b"Exif")
    assert exif.orientation(content) == 6
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(content[:400])
        broken[start + rng.integers(0, 60)] = rng.integers(0, 256)
        assert 1 <= exif.orientation(bytes(broken)) <= 8
    for length in range(200):
        assert 1 <= exif.orientation(content[:length]) <= 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_images_are_named(tmp_path, caplog, kind):
    path = tmp_path / f"a.{kind.lower()}"
    first, second = (Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO))
    first.save(path, kind, lossless=True)
    open_frames(path)
    assert caplog.text == ""
    first.save(path, kind, save_all=True, append_images=[second], lossless=True)
    np.testing.assert_array_equal(open_frames(path).read_all()[0], PHOTO)
    assert "only its first picture is read" in caplog.text


# --- opacity


def transparent(dtype, *, height=12, width=20):
    """Returns RGBA: noise, with an opacity that rises from left to right."""
    most = np.iinfo(dtype).max
    colours = np.random.default_rng(0).integers(0, most + 1, (height, width, 3), dtype)
    ramp = np.linspace(0, most, width).astype(dtype)
    return np.dstack([colours, np.broadcast_to(ramp, (height, width))])


def save(path, rgba):
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgba[..., [2, 1, 0, 3]]))


def restored(path, target, *, scale, bits=None):
    """Passes a folder through reader and writer, enlarged by repeating pixels."""
    source = open_frames(path)
    size = {"height": source.height * scale, "width": source.width * scale}
    bits = bits or source.bits
    with open_writer(
        target, fps=None if source.fps else 25, bits=bits, source=source, **size
    ) as writer:
        for frame in source:
            frame = frame if bits == source.bits else (frame // 257).astype(np.uint8)
            writer.write(frame.repeat(scale, 0).repeat(scale, 1))
    return writer


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_opacity_is_kept_in_png(tmp_path, caplog, dtype):
    (tmp_path / "in").mkdir()
    rgba = transparent(dtype)
    save(tmp_path / "in/1.png", rgba)
    opaque = rgba.copy()
    opaque[..., 3] = np.iinfo(dtype).max
    save(tmp_path / "in/2.png", opaque)
    cv2.imwrite(str(tmp_path / "in/3.png"), rgba[..., :3])  # without a channel for it
    assert open_frames(tmp_path / "in").has_alpha
    with caplog.at_level(logging.WARNING):
        assert restored(tmp_path / "in", tmp_path / "same", scale=1).dropped == ()
        restored(tmp_path / "in", tmp_path / "twice", scale=2)
    assert caplog.text == ""  # nothing is lost
    same = cv2.imread(str(tmp_path / "same/1.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(same[..., [2, 1, 0, 3]], rgba)
    for name in ("2.png", "3.png"):
        whole = cv2.imread(str(tmp_path / "twice" / name), cv2.IMREAD_UNCHANGED)
        assert whole.shape == (24, 40, 4) and np.all(whole[..., 3] == np.iinfo(dtype).max)
    alpha = cv2.imread(str(tmp_path / "twice/1.png"), cv2.IMREAD_UNCHANGED)[..., 3]
    places = (np.arange(4, 36) + 0.5) / 2 - 0.5  # of result pixels, away from the border
    expected = np.interp(places, np.arange(20), rgba[0, :, 3])
    # Cubic interpolation follows a ramp to within a tenth of its step, and 8 bits are rounded.
    error = np.abs(alpha[:, 4:36].astype(float) - expected).max() / np.iinfo(dtype).max
    assert error < 0.1 / 19 + 1 / 255


def test_opacity_follows_the_depth_of_the_output(tmp_path):
    (tmp_path / "in").mkdir()
    rgba = transparent(np.uint16)
    save(tmp_path / "in/1.png", rgba)
    restored(tmp_path / "in", tmp_path / "out", scale=1, bits=8)
    written = cv2.imread(str(tmp_path / "out/1.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written[..., 3], np.rint(rgba[..., 3] / 257))


def test_a_film_of_transparent_images_says_what_it_loses(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in/1.png", transparent(np.uint8))
    writer = restored(tmp_path / "in", tmp_path / "out.mp4", scale=2)
    assert writer.dropped == ["transparency"]
    assert ".mp4 does not keep transparency" in caplog.text


def test_opacity_of_a_film_is_kept_in_png(tmp_path, caplog):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (2, 48, 64))[..., None]
    path = make(
        tmp_path / "in.mkv", np.concatenate([smooth(2), ramp], -1), pix_fmt="bgra", rgb="rgba"
    )
    np.testing.assert_array_equal(open_frames(path).read_all(), smooth(2))
    restored(path, tmp_path / "out", scale=1)
    for k in range(2):
        image = cv2.imread(str(tmp_path / f"out/0000000{k}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image[..., [2, 1, 0]], smooth(2)[k])
        np.testing.assert_array_equal(image[..., 3:], ramp[k])
    assert "transparency" in restored(path, tmp_path / "out.mp4", scale=1).dropped


@pytest.mark.parametrize(
    ("mode", "extra", "alpha"),
    [
        ("LA", {}, True),
        ("P", {"transparency": 3}, True),
        ("RGB", {"transparency": (5, 5, 5)}, True),
        ("RGB", {}, False),
        ("P", {}, False),
        ("L", {}, False),
    ],
)
def test_every_kind_of_transparent_png_is_known_by_its_header(tmp_path, mode, extra, alpha):
    grey = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    grey.convert(mode).save(tmp_path / "a.png", **extra)
    assert images.probe(tmp_path / "a.png").alpha == alpha
    assert (images.read_with_alpha(tmp_path / "a.png")[1] is not None) == alpha
