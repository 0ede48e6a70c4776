"""The published protocols on made-up sets, each number found again on another way."""

import csv
import dataclasses
import json

import cv2
import jax
import numpy as np
import pytest
from helpers import archives
from helpers.toy import PARAMS, Slide, Toy

from rvrt_jax.data.degrade import bicubic_down
from rvrt_jax.data.prepare.__main__ import main
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import metrics, protocol
from rvrt_jax.evaluation import test_sets as testsets
from rvrt_jax.evaluation import warping_error as consistency
from rvrt_jax.evaluation.protocol import ProtocolOptions
from rvrt_jax.restoration.restore import restore
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import load as loading


def frames(seed, t, h, w):
    return np.random.default_rng(seed).integers(0, 255, (t, h, w, 3)).astype(np.uint8)


def save(folder, video, *, suffix=".png", first=0, name="{:08d}", exist_ok=False):
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for i, frame in enumerate(video, first):
        assert cv2.imwrite(str(folder / (name.format(i) + suffix)), frame[..., ::-1])


def scores(restored, truth):
    """Means over the frames of a clip."""
    pixels = np.rint(255 * np.clip(restored, 0, 1)).astype(np.uint8)
    each = [metrics.frame_scores(a, b) for a, b in zip(pixels, truth, strict=True)]
    return {key: float(np.mean([one[key] for one in each])) for key in each[0]}


@pytest.fixture
def small(monkeypatch):
    """Lets a set have as many clips and frames as a test makes."""

    def shrink(name, clips, **changes):
        changes = {"clips": clips, "frames": 0} | changes
        test = dataclasses.replace(testsets.TEST_SETS[name], **changes)
        monkeypatch.setitem(testsets.TEST_SETS, name, test)

    return shrink


@pytest.fixture
def run(tmp_path, capsys):
    def call(model, name, *, published="RVRT", **options):
        settings = RestoreSettings("published", None, ensemble=options.pop("ensemble", 1))
        options = {"data": tmp_path, "settings": settings, "metrics": ("psnr", "ssim")} | options
        chosen, output = ProtocolOptions(**options), tmp_path / "out"
        report = protocol.run(model, PARAMS, [name], chosen, output=output, published=published)
        return report["sets"], capsys.readouterr().out.splitlines()

    return call


def test_tiles_and_means_of_clips_of_reds4(tmp_path, small, run):
    """Two clips of unequal length; a network that looks round the tiles' edges."""
    small("reds4", 2, tile=(4, 12, 12), overlap=(2, 4, 4))
    model = Toy(blur=True)
    expected = {}
    for name, length in (("000", 5), ("011", 7)):
        low, truth = frames(length, length, 17, 15), frames(length + 1, length, 68, 60)
        save(tmp_path / "REDS4/sharp_bicubic" / name, low)
        save(tmp_path / "REDS4/GT" / name, truth)
        restored = restore(model, PARAMS, low, tile=(4, 12, 12), overlap=(2, 4, 4))
        expected[name] = scores(restored, truth)
    (one,), lines = run(model, "reds4")
    for name, clip in expected.items():
        assert one["clips"][name] == pytest.approx(clip)
    for key in ("psnr_rgb", "ssim_y"):
        a, b = (expected[name][key] for name in expected)
        assert one["mean"][key] == pytest.approx((a + b) / 2)
        assert one["mean_of_frames"][key] == pytest.approx((5 * a + 7 * b) / 12)
    psnr, ssim = one["mean"]["psnr_rgb"], one["mean"]["ssim_rgb"]
    cells = f"REDS4 RGB 2 12 {psnr:.2f} 32.75 {psnr - 32.75:+.2f} {ssim:.4f} 0.9113".split()
    assert len(lines) == 3 and lines[1].split()[: len(cells)] == cells


def test_files_hold_what_is_printed(tmp_path, small, run):
    small("reds4", 1)
    low, truth = frames(0, 3, 8, 9), frames(1, 3, 32, 36)
    save(tmp_path / "REDS4/sharp_bicubic/000", low)
    save(tmp_path / "REDS4/GT/000", truth)
    (one,), _ = run(Toy(), "reds4")
    report = json.loads((tmp_path / "out/scores.json").read_text())
    assert report["sets"][0]["clips"]["000"] == pytest.approx(one["clips"]["000"])
    with open(tmp_path / "out/scores.csv") as file:
        lines = list(csv.DictReader(file))
    enlarged = low.repeat(4, axis=1).repeat(4, axis=2)
    for i, line in enumerate(lines):
        assert (line["set"], line["clip"], line["frame"]) == ("reds4", "000", str(i))
        assert float(line["psnr_y"]) == metrics.frame_scores(enlarged[i], truth[i])["psnr_y"]
    markdown = (tmp_path / "out/scores.md").read_text().splitlines()
    assert len(lines) == 3 and len(markdown) == 3
    assert f"| {one['mean']['psnr_rgb']:.2f} | 32.75 |" in markdown[2]


class Shifting(Toy):
    """Adds to each frame its distance from the clip's start: 0 for the first, 0.01 for the next."""

    def __call__(self, video):
        ramp = 0.01 * np.arange(video.shape[1], dtype=np.float32)
        return super().__call__(video) + ramp[None, :, None, None, None]


def test_septuplets_are_mirrored_and_their_two_middles_averaged(tmp_path, small, run):
    small("vimeo_bi", 2)
    root = tmp_path / "Vimeo90K"
    expected = []
    for i, name in enumerate(("00001/0266", "00002/0268")):
        low, truth = frames(i, 7, 8, 9) // 2, frames(9 + i, 7, 32, 36)
        naming = {"first": 1, "name": "im{}"}
        save(root / "vimeo_septuplet_matlabLRx4/sequences" / name, low, **naming)
        save(root / "vimeo_septuplet/sequences" / name, truth, **naming)
        middle = low[3].repeat(4, axis=0).repeat(4, axis=1) / 255
        # Frame 3 has 0.03 added, frame 10 0.10; both show the middle frame.
        expected.append(scores((middle + 0.065)[None], truth[3:4]))
    other = root / "vimeo_septuplet/sequences/00003/0001"  # not in the list of test clips
    save(other, frames(5, 7, 32, 36), first=1, name="im{}")
    (root / "vimeo_septuplet/sep_testlist.txt").write_text("00001/0266\n00002/0268\n\n")
    (one,), lines = run(Shifting(), "vimeo_bi")
    assert one["frames"] == 2
    for key in ("psnr_y", "ssim_rgb"):
        assert one["mean"][key] == pytest.approx(np.mean([e[key] for e in expected]), rel=1e-4)
    assert "Vimeo-90K-T BI Y" in lines[1] and "38.15" in lines[1]


def test_windows_take_a_septuplet_as_it_is(tmp_path, small, run):
    small("vimeo_bi", 1)
    root = tmp_path / "Vimeo90K"
    low, truth = frames(0, 7, 8, 8), frames(1, 7, 32, 32)
    naming = {"first": 1, "name": "im{}"}
    save(root / "vimeo_septuplet_matlabLRx4/sequences/00001/0001", low, **naming)
    save(root / "vimeo_septuplet/sequences/00001/0001", truth, **naming)
    (root / "vimeo_septuplet/sep_testlist.txt").write_text("00001/0001\n")
    model = Slide(scale=4, window=7, centre=3)
    (one,), _ = run(model, "vimeo_bi", ensemble=4)
    restored = restore(model, PARAMS, low, ensemble=4)[3:4]
    assert one["clips"]["00001/0001"] == pytest.approx(scores(restored, truth[3:4]))


def test_gopro_prints_both_averages(tmp_path, small, run):
    small("gopro11", 2)
    expected = []
    for i, length in enumerate((2, 4)):
        blurred, truth = frames(i, length, 24, 32), frames(i + 5, length, 24, 32)
        save(tmp_path / "GoPro11/test_GT_blurred" / f"clip{i}", blurred, name="{:06d}", first=47)
        save(tmp_path / "GoPro11/test_GT" / f"clip{i}", truth, name="{:06d}", first=47)
        expected.append(scores(blurred / 255, truth)["psnr_rgb"])
    _, lines = run(Toy(scale=1), "gopro11")
    by_frame, by_clip = (2 * expected[0] + 4 * expected[1]) / 6, np.mean(expected)
    assert f"GoPro11 RGB, mean of frames      2       6  {by_frame:.2f}      34.92" in lines[1]
    assert f"GoPro11 RGB, mean of clips       2       6  {by_clip:.2f}   " in lines[2]


def test_noise_is_drawn_anew_for_each_clip_or_read(tmp_path, small, run):
    small("set8", 2)
    model = Toy(scale=1, takes_noise_level=True)  # adds sigma / 255 to what it gets
    truths = [frames(i, 2, 13, 16) for i in range(2)]
    for i, truth in enumerate(truths):
        save(tmp_path / "Set8/GT" / f"clip{i}", truth)
    stored = np.random.default_rng(3).standard_normal((2, 2, 3, 13, 16)).astype(np.float32)
    (tmp_path / "noise").mkdir()
    for i, noise in enumerate(stored):
        np.save(tmp_path / "noise" / f"clip{i}.npy", noise)
    drawn = np.random.default_rng(0).standard_normal((2, 13, 16, 3), np.float32)
    for folder, noises in (
        (None, [drawn, drawn]),
        (tmp_path / "noise", np.moveaxis(stored, 2, -1)),
    ):
        sets, lines = run(model, "set8", noise=folder)
        assert [one["sigma"] for one in sets] == [10, 20, 30, 40, 50]
        for one in sets:
            level = one["sigma"] / 255
            for i, truth in enumerate(truths):
                noisy = truth / 255 + level * noises[i] + level
                assert one["clips"][f"clip{i}"] == pytest.approx(scores(noisy, truth), rel=1e-4)
    assert lines[2].split()[:5] == ["Set8", "RGB", "sigma", "20", "2"] and "34.83" in lines[2]
    np.save(tmp_path / "noise/clip1.npy", stored[0][:1])
    with pytest.raises(
        UserError, match=r"clip1\.npy holds noise \(1, 3, 13, 16\); .*\(2, 3, 13, 16\)"
    ):
        run(model, "set8", noise=tmp_path / "noise")


@pytest.mark.parametrize(
    "name, prepared, kind, folder",
    [("vid4_bd", "vid4", "blur_down", "."), ("vimeo_bi", "vimeo", "bicubic", "Vimeo90K")],
)
def test_a_prepared_set_scores_as_the_same_images_in_folders(
    name, prepared, kind, folder, tmp_path, small, run, monkeypatch
):
    archives.small_counts(monkeypatch)
    small(name, archives.COUNTS[prepared, "test"][0])
    images = archives.unpack(archives.DOWNLOADS[prepared](), tmp_path / "images" / folder)
    found, _ = run(Shifting(), name, data=tmp_path / "images")
    data = tmp_path / "data"
    command = [prepared, "--source", str(images), "--output", str(data)]
    assert main(command) == 0
    with pytest.raises(UserError, match=rf"no degraded frames of that kind.*--lq: {kind}"):
        run(Shifting(), name, data=data)
    made, _ = run(Shifting(), name, data=data, degrade=True)
    assert made[0]["frames"] == found[0]["frames"] and made != found
    assert main([*command, "--lq", kind]) == 0
    assert run(Shifting(), name, data=data)[0] == found


def test_missing_input_is_made_when_asked_for(tmp_path, small, run):
    small("vid4_bi", 1)
    truth = frames(0, 2, 32, 40)
    save(tmp_path / "Vid4/GT/calendar", truth)
    with pytest.raises(UserError, match=r"(?s)Vid4 BI is not there.*Vid4/BIx4.*--degrade"):
        run(Toy(), "vid4_bi")
    (one,), _ = run(Toy(), "vid4_bi", degrade=True)
    expected = scores(bicubic_down(truth).repeat(4, axis=1).repeat(4, axis=2) / 255, truth)
    assert one["mean"] == pytest.approx(expected)


def test_mistakes_are_found_before_anything_runs(tmp_path, small, monkeypatch):
    monkeypatch.setattr(protocol, "score_clip", None)  # must not be reached
    options = ProtocolOptions(tmp_path)

    def attempt(name, message, model=None):
        with pytest.raises(UserError, match=message):
            protocol.run(model or Toy(), PARAMS, [name], options, output=tmp_path / "out")

    attempt("reds5", r"test sets \['reds5'\]; choose from reds4, ")
    attempt("set8", "test of denoising, but the model takes no noise level")
    attempt("reds4", "test of clean input, but the model takes noise", Toy(takes_noise_level=True))
    attempt("reds4", r"(?s)REDS4/GT, .*seungjunnah.*put the clips into .*REDS4/GT/<clip>/\*\.png")
    attempt("vimeo_bd", r"(?s)sep_testlist\.txt missing.*im1\.png")
    save(tmp_path / "REDS4/GT/000", frames(0, 3, 32, 32))
    save(tmp_path / "REDS4/sharp_bicubic/000", frames(0, 2, 8, 8))
    attempt("reds4", "REDS4 has 4 clips, but 1 are in .*: 000")
    small("reds4", 1)
    attempt("reds4", "sharp_bicubic/000 has 2 frames; 3 belong to")
    save(tmp_path / "REDS4/GT/011", frames(0, 3, 32, 32))
    attempt("reds4", "1 folders of clips are missing, such as .*sharp_bicubic/011")
    save(tmp_path / "REDS4/sharp_bicubic/011", frames(0, 3, 8, 8))
    save(tmp_path / "REDS4/sharp_bicubic/000", frames(0, 3, 8, 8), exist_ok=True)
    small("reds4", 2, frames=400)
    attempt("reds4", "REDS4 has 400 frames, but 6 are there, .*GT/000")
    assert not (tmp_path / "out").exists()


def test_the_warping_error_is_zero_along_the_motion_and_counts_flicker(monkeypatch):
    """SpyNet is put aside: the flow is a known shift of (2, 1) pixels."""
    shift = np.broadcast_to(np.float32([2, 1]), (20, 24, 2))

    class Known:
        def apply(self, params, references, supports):
            np.testing.assert_array_equal(references, supports[::-1])
            return np.stack([shift, -shift])

    monkeypatch.setattr(consistency, "SpyNet", Known)
    rng = np.random.default_rng(0)
    scene = rng.random((40, 40, 3), np.float32)
    truth = np.stack([scene[5:25, 5:29], scene[6:26, 7:31]])  # moves up and to the left
    with jax.disable_jit():
        still = consistency.warping_error.__wrapped__({}, truth, truth)
        np.testing.assert_allclose(still, [0, 0], atol=1e-12)
        flicker = np.stack([truth[0], truth[1] + 0.1])
        found = consistency.warping_error.__wrapped__({}, flicker, truth)
        np.testing.assert_allclose(found, [0.01, 0], atol=1e-6)
        # Rows and columns whose counterpart lies outside are not counted.
        outside = truth.copy()
        outside[1, -1:] = outside[1, :, -2:] = 5
        np.testing.assert_allclose(
            consistency.warping_error.__wrapped__({}, outside, truth), [0, 0], atol=1e-12
        )
        unseen = consistency.visible(jax.numpy.asarray(shift), jax.numpy.zeros((20, 24, 2)))
    assert not unseen.any()  # the flow back says otherwise everywhere


def test_the_column_of_the_warping_error_comes_from_our_own_flow(tmp_path, small, run):
    small("reds4", 1)
    low, truth = frames(0, 3, 8, 8), frames(1, 3, 32, 32)
    save(tmp_path / "REDS4/sharp_bicubic/000", low)
    save(tmp_path / "REDS4/GT/000", truth)
    (one,), lines = run(Toy(), "reds4", metrics=("psnr", "ssim", "warp"))
    enlarged = low.repeat(4, axis=1).repeat(4, axis=2)
    spynet = loading.spynet_params()
    errors = []
    for i in (1, 2):
        pair, true = (np.float32(x[i - 1 : i + 1]) / 255 for x in (enlarged, truth))
        errors.append(np.asarray(consistency.warping_error(spynet, pair, true)))
    found = [one["mean"]["warping"], one["mean"]["warping_true"]]
    np.testing.assert_allclose(found, np.mean(errors, axis=0), rtol=1e-4)
    assert f"{1000 * found[0]:.3f} ({1000 * found[1]:.3f})" in lines[1]
