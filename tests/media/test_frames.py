"""Folders of images, the reading and writing of clips, and conversion to and from float."""

import logging
import os
import stat
from fractions import Fraction

import cv2
import numpy as np
import pytest

from rvrt_jax.errors import UserError
from rvrt_jax.media import images
from rvrt_jax.media.frames import open_frames, open_writer, parse_fps, to_float, to_uint
from rvrt_jax.media.image_folders import natural_key

HEIGHT, WIDTH = 13, 19  # odd, and different


def picture(seed, *, dtype=np.uint8, height=HEIGHT, width=WIDTH, channels=3):
    """Returns noise, [h, w, channels], over the whole range of the dtype."""
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def save(path, image):
    """Writes an image in R, G, B(, A) order with OpenCV, apart from the code under test."""
    order = {2: lambda x: x, 3: lambda x: x[..., [2, 1, 0, 3][: x.shape[2]]]}[image.ndim]
    assert cv2.imwrite(str(path), np.ascontiguousarray(order(image)))


@pytest.fixture
def folder(tmp_path):
    """A folder of three images named 2, 10, 1 and some files that are no frames."""
    path = tmp_path / "in"
    path.mkdir()
    for name in ("2.png", "10.png", "1.png"):
        save(path / name, picture(int(name[:-4])))
    save(path / ".hidden.png", picture(99, height=5))
    (path / "notes.txt").write_text("no frame")
    (path / "sub.png").mkdir()
    return path


# --- reading


def test_folder_comes_in_natural_order_and_can_be_read_again(folder):
    with open_frames(str(folder), fps="24000/1001") as source:
        assert source.names == ["1.png", "2.png", "10.png"]
        assert (source.length, source.height, source.width) == (3, HEIGHT, WIDTH)
        assert (source.bits, source.fps) == (8, Fraction(24000, 1001))
        expected = np.stack([picture(1), picture(2), picture(10)])
        np.testing.assert_array_equal(source.read_all(), expected)
        np.testing.assert_array_equal(np.stack(list(source)), expected)
    assert open_frames(folder).fps is None


def test_pattern_and_single_image(folder):
    assert open_frames(folder / "1*.png").names == ["1.png", "10.png"]
    source = open_frames(folder / "2.png")
    np.testing.assert_array_equal(source.read_all(), picture(2)[None])


def test_natural_order_is_by_number():
    names = ["a9", "a10", "b1", "A2", "a02", "a2b", "10", "9", ""]
    assert sorted(names, key=natural_key) == ["", "9", "10", "A2", "a02", "a2b", "a9", "a10", "b1"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_grey_and_transparent_images_become_rgb(tmp_path, caplog, suffix, dtype):
    grey = picture(0, dtype=dtype, channels=1)[..., 0]
    save(tmp_path / f"grey{suffix}", grey)
    expected = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(images.read(tmp_path / f"grey{suffix}"), expected)

    rgba = picture(1, dtype=dtype, channels=4)
    save(tmp_path / f"alpha{suffix}", rgba)
    with caplog.at_level(logging.WARNING):
        read = images.read(tmp_path / f"alpha{suffix}")
    np.testing.assert_array_equal(read, rgba[..., :3])
    assert "transparen" in caplog.text

    caplog.clear()
    rgba[..., 3] = np.iinfo(dtype).max
    save(tmp_path / f"opaque{suffix}", rgba)
    images.read(tmp_path / f"opaque{suffix}")
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_formats_are_read_with_the_right_channel_order(tmp_path, suffix):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.uint8([200, 40, 90])
    save(tmp_path / f"a{suffix}", image)
    info = images.probe(tmp_path / f"a{suffix}")
    assert (info.height, info.width, info.bits) == (HEIGHT, WIDTH, 8)
    error = np.abs(images.read(tmp_path / f"a{suffix}").astype(int) - image).max()
    assert error <= (4 if suffix in (".jpg", ".webp") else 0)  # lossy ones round a flat colour


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    frames = [picture(k, dtype=np.uint16) for k in range(2)]
    for k, frame in enumerate(frames):
        save(tmp_path / f"{k}.png", frame)
    source = open_frames(tmp_path)
    assert source.bits == 16
    size = {"height": HEIGHT, "width": WIDTH}
    with open_writer(tmp_path / "out", fps=None, bits=16, source=source, **size) as writer:
        for frame in source:
            writer.write(to_uint(to_float(frame), 16))
    for k, frame in enumerate(frames):
        read = cv2.imread(str(tmp_path / "out" / f"{k}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read[..., ::-1], frame)


# --- images that cannot be used


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.95])
def test_truncated_image_is_named(tmp_path, suffix, kept):
    save(tmp_path / f"1{suffix}", picture(0, height=61, width=67))
    whole = (tmp_path / f"1{suffix}").read_bytes()
    (tmp_path / f"2{suffix}").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError, match=rf"2\{suffix}.*(truncated|empty)"):
        open_frames(tmp_path)
    with pytest.raises(UserError, match=rf"2\{suffix}.*(truncated|empty)"):
        images.read(tmp_path / f"2{suffix}")


def test_jpeg_end_mark_of_a_preview_does_not_hide_a_cut(tmp_path):
    save(tmp_path / "a.jpg", picture(0, height=61, width=67))
    save(tmp_path / "small.jpg", picture(1))
    whole, preview = (tmp_path / "a.jpg").read_bytes(), (tmp_path / "small.jpg").read_bytes()
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    (tmp_path / "b.jpg").write_bytes(whole[:2] + segment + whole[2:])
    info = images.probe(tmp_path / "b.jpg")
    assert (info.height, info.width) == (61, 67)
    (tmp_path / "b.jpg").write_bytes(whole[:2] + segment + whole[2:-2])
    for look in (images.probe, images.read):
        with pytest.raises(UserError, match="truncated"):
            look(tmp_path / "b.jpg")
    # What follows the end, such as the film of a phone's moving photo, is no concern.
    (tmp_path / "b.jpg").write_bytes(whole + b"\xff\xda trailing film")
    assert images.probe(tmp_path / "b.jpg").height == 61


def test_unusable_images_are_named(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(UserError, match=r"a\.png"):
        open_frames(tmp_path)
    cv2.imwrite(str(tmp_path / "b.tiff"), np.zeros((4, 5), np.float32))
    with pytest.raises(UserError, match="float32"):
        images.read(tmp_path / "b.tiff")


def test_sizes_and_depths_must_agree(tmp_path):
    save(tmp_path / "1.png", picture(0))
    save(tmp_path / "2.jpg", picture(0, height=HEIGHT + 1))
    with pytest.raises(UserError, match=r"2\.jpg is 19x14; .* one size, which is 19x13"):
        open_frames(tmp_path)
    save(tmp_path / "3.png", picture(0, height=HEIGHT + 1))  # now the first is the odd one
    with pytest.raises(UserError, match=r"1\.png is 19x13; .* which is 19x14 in .*one_by_one"):
        open_frames(tmp_path)
    save(tmp_path / "2.jpg", picture(0))
    save(tmp_path / "3.png", picture(0, dtype=np.uint16))
    with pytest.raises(UserError, match=r"3\.png has 16 bits, other images in .* have 8"):
        open_frames(tmp_path)


def test_a_frame_that_changed_after_opening_is_noticed(folder):
    source = open_frames(folder)
    save(folder / "10.png", picture(0, height=7))
    with pytest.raises(UserError, match=r"10\.png is 19x7"):
        source.read_all()


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_frames(tmp_path / "none")
    with pytest.raises(UserError, match="no image"):
        open_frames(tmp_path)
    with pytest.raises(UserError, match="matches 0 files"):
        open_frames(tmp_path / "*.png")
    (tmp_path / "000").mkdir()
    with pytest.raises(UserError, match="holds 000"):
        open_frames(tmp_path)


# --- writing


def write(path, frames, **options):
    """Writes 8-bit frames with `open_writer`."""
    h, w, _ = frames[0].shape
    with open_writer(path, **{"fps": None, "height": h, "width": w} | options) as writer:
        for frame in frames:
            writer.write(frame)
        return writer


def test_output_names_follow_the_input(folder, tmp_path):
    source = open_frames(folder)
    write(tmp_path / "new" / "out", list(source), names=source.names)
    assert sorted(os.listdir(tmp_path / "new")) == ["out"]
    again = open_frames(tmp_path / "new" / "out")
    assert again.names == ["1.png", "2.png", "10.png"]
    np.testing.assert_array_equal(again.read_all(), source.read_all())

    write(tmp_path / "by_source", list(source), source=source)
    assert open_frames(tmp_path / "by_source").names == again.names
    write(tmp_path / "numbered", list(source))
    assert open_frames(tmp_path / "numbered").names == [f"0000000{k}.png" for k in range(3)]
    write(tmp_path / "jpg", [picture(0)], names=["a.b.JPG"])
    assert os.listdir(tmp_path / "jpg") == ["a.b.png"]


def test_colliding_and_missing_names(tmp_path):
    with pytest.raises(UserError, match=r"a\.jpg and a\.png would both become a\.png"):
        write(tmp_path / "out", [picture(0)], names=["a.jpg", "a.png"])
    with pytest.raises(ValueError, match="no name"):
        write(tmp_path / "out", [picture(0)] * 2, names=["a.jpg"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out", "out.mp4"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_stays_after_an_error(tmp_path, name, error):
    options = {"fps": 25, "height": HEIGHT, "width": WIDTH}
    with pytest.raises(error), open_writer(tmp_path / name, **options) as writer:
        writer.write(picture(0))
        assert not (tmp_path / name).exists()
        raise error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out", "out.mkv"])
def test_no_frame_is_an_error(tmp_path, name):
    options = {"fps": 25, "height": HEIGHT, "width": WIDTH}
    with pytest.raises(UserError, match="no frame"), open_writer(tmp_path / name, **options):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out", "out.mkv"])
def test_wrong_frames_are_refused(tmp_path, name):
    for wrong in (picture(0, height=4), picture(0, dtype=np.uint16), picture(0, channels=4)):
        options = {"fps": 25, "height": HEIGHT, "width": WIDTH}
        with pytest.raises(ValueError, match="opened for uint8"):
            with open_writer(tmp_path / name, **options) as writer:
                writer.write(wrong)
    assert os.listdir(tmp_path) == []


def test_existing_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(out, [picture(0), picture(1)])  # an empty folder is taken
    with pytest.raises(UserError, match="holds 2 images"):
        write(out, [picture(2)])
    with (
        pytest.raises(RuntimeError),
        open_writer(out, fps=None, height=HEIGHT, width=WIDTH, overwrite=True) as writer,
    ):
        writer.write(picture(2))
        raise RuntimeError
    assert open_frames(out).length == 2  # as it was
    write(out, [picture(2)], overwrite=True)
    np.testing.assert_array_equal(open_frames(out).read_all(), picture(2)[None])
    assert os.listdir(tmp_path) == ["out"]

    (out / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"letter\.txt"):
        write(out, [picture(2)], overwrite=True)
    with pytest.raises(UserError, match="a file, not a folder"):
        (tmp_path / "file").write_text("")
        write(tmp_path / "file", [picture(2)], overwrite=True)


def test_existing_file(tmp_path):
    out = tmp_path / "out.mkv"
    write(out, [picture(0)], fps=25, codec="ffv1")
    with pytest.raises(UserError, match="exists"):
        write(out, [picture(1)], fps=25, codec="ffv1")
    with pytest.raises(ValueError, match="opened for"):
        write(out, [picture(1), picture(1, height=3)], fps=25, codec="ffv1", overwrite=True)
    np.testing.assert_array_equal(open_frames(out).read_all(), picture(0)[None])
    write(out, [picture(1)], fps=25, codec="ffv1", overwrite=True)
    np.testing.assert_array_equal(open_frames(out).read_all(), picture(1)[None])
    assert os.listdir(tmp_path) == ["out.mkv"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~umask


def test_the_input_is_never_overwritten(folder):
    source = open_frames(folder)
    with pytest.raises(UserError, match="is an input or holds one"):
        write(folder, list(source), source=source, overwrite=True)


def test_one_picture(folder, tmp_path):
    with open_frames(folder / "2.png") as source:
        (frame,) = source
        write(tmp_path / "out.PNG", [frame], source=source)
    np.testing.assert_array_equal(open_frames(tmp_path / "out.PNG").read_all(), frame[None])
    with pytest.raises(ValueError, match="no name"):
        write(tmp_path / "two.png", [frame, frame])
    with open_frames(folder) as source, pytest.raises(UserError, match="there are 3 frames"):
        write(tmp_path / "two.png", list(source), source=source)
    assert sorted(path.name for path in tmp_path.iterdir() if path != folder) == ["out.PNG"]


def test_output_that_cannot_be_chosen(tmp_path):
    for name, options, message in (
        ("out.mp5", {"fps": 25}, "cannot write .mp5"),
        ("out.jpg", {"fps": 25}, "cannot write .jpg"),
        ("out.mp4", {}, "images have no frame rate"),
        ("out.mp4", {"fps": "fast"}, "fps is fast"),
        ("out.mp4", {"fps": 0}, "above 0"),
        ("out.mp4", {"fps": 25, "codec": "divx"}, "'divx' is unknown"),
        ("out.mp4", {"fps": 25, "codec": "ffv1"}, "ffv1 video goes into .mkv"),
        ("out.webm", {"fps": 25, "codec": "libvpx-vp9", "bits": 16}, "cannot write 16-bit"),
        ("out.mp4", {"fps": 25, "crf": 52}, "crf is 52"),
    ):
        with pytest.raises(UserError, match=message):
            write(tmp_path / name, [picture(0)], **options)
    assert os.listdir(tmp_path) == []
    write(str(tmp_path / "out.v2") + "/", [picture(0)])
    assert os.listdir(tmp_path / "out.v2") == ["00000000.png"]


# --- numbers


@pytest.mark.parametrize("bits, dtype", [(8, np.uint8), (16, np.uint16)])
def test_float_and_back_is_exact(bits, dtype):
    every = np.arange(2**bits, dtype=dtype).reshape(16, -1, 1)
    floats = to_float(every)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, every / np.iinfo(dtype).max, rtol=1e-7)
    back = to_uint(floats, bits)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, every)


def test_to_uint_clamps_and_rounds_half_to_even():
    values = np.float32([-3, -1e-9, 0.5 / 255, 1.5 / 255, 2.5 / 255, 0.5, 0.999, 1.0001, 7])
    assert to_uint(values, 8).tolist() == [0, 0, 0, 2, 2, 128, 255, 255, 255]
    assert to_uint(np.float32([0.5, 2]), 16).tolist() == [32768, 65535]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_to_uint_refuses_what_is_no_number(bad):
    frames = np.zeros((2, 3, 4, 3), np.float32)
    frames[1, 2, 3, 0] = bad
    with pytest.raises(UserError, match="1 of 72 values are NaN or infinite"):
        to_uint(frames, 8)


def test_wrong_types_are_refused():
    with pytest.raises(ValueError, match="float32"):
        to_float(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="bits is 10"):
        to_uint(np.zeros(3, np.float32), 10)


def test_parse_fps():
    assert parse_fps("30000/1001") == Fraction(30000, 1001)
    assert parse_fps(29.97) == Fraction(2997, 100)
    assert parse_fps(25) == 25
    for bad in ("x", "1/0", "-5", "nan"):
        with pytest.raises(UserError, match="fps"):
            parse_fps(bad)
