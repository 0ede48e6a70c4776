"""Training straight from folders and videos, given and made degradations, and what is refused."""

import itertools
import json
import pickle

import cv2
import numpy as np
import pytest
from helpers import archives, films

from rvrt_jax.data import pipeline, plain
from rvrt_jax.data.degrade import bicubic_down, blur_down
from rvrt_jax.data.options import DataOptions
from rvrt_jax.data.prepare import tfds_builder
from rvrt_jax.data.sampler import Sampler
from rvrt_jax.errors import UserError
from rvrt_jax.media.video_reader import VideoReader

OWN = {
    "dataset": "own",
    "num_frames": 3,
    "gt_size": 16,
    "photo_fraction": 0.0,
    "camera_fraction": 0.0,
    "tries": 1,
    "reverse_fraction": 0.0,
    "prefetch": 1,
    "validation_dataset": "none",
}
POSES = list(itertools.product((False, True), repeat=3))


def train(config, **shard):
    return pipeline.train(DataOptions.read(config), **shard)


def validation(config):
    return pipeline.validation(DataOptions.read(config))


def write(folder, frames, *, suffix=".png"):
    folder.mkdir(parents=True)
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{k}{suffix}"), frame[..., ::-1])


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def clips():
    """Two clips, 5 and 4 frames, 37x41 and 24x20, of noise: every crop is found in one place."""
    return {"a": noise(1, 5, 37, 41), "b": noise(2, 4, 24, 20)}


@pytest.fixture(scope="module")
def pairs(clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    for name, frames in clips.items():
        write(root / "gt" / name, frames)
        write(root / "lq" / name, 255 - frames)
        small = noise(len(frames), len(frames), frames.shape[1] // 4, frames.shape[2] // 4)
        write(root / "small" / name, small)
    return root


def sampler(seed=0, **options):
    return Sampler(DataOptions.read({**OWN, **options}), seed)


def to_8_bit(x):
    """Samples are 8-bit; noise's alone are floats."""
    if x.dtype == np.uint8:
        return x
    scaled = x * 255
    np.testing.assert_allclose(scaled, np.rint(scaled), atol=1e-4)
    return np.rint(scaled).astype(np.uint8)


def posed(clip, pose):
    """Undoes one of the eight poses of augmentation."""
    across, down, transpose = pose
    clip = clip.swapaxes(1, 2) if transpose else clip
    clip = clip[:, ::-1] if down else clip
    return clip[:, :, ::-1] if across else clip


def place(gt, clips):
    """Finds where a sample was taken: (clip, start, y, x, pose)."""
    found = []
    for pose in POSES:
        sample = posed(gt, pose)
        t, n = sample.shape[:2]
        for name, frames in clips.items():
            views = np.lib.stride_tricks.sliding_window_view(frames[..., 0], (t, n, n))
            matches = np.argwhere(views[..., 0, 0, 0] == sample[0, 0, 0, 0])
            for start, y, x in matches:
                if np.array_equal(frames[start : start + t, y : y + n, x : x + n], sample):
                    found.append((name, int(start), int(y), int(x), pose))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("scale", "folder"), [(1, "lq"), (4, "small")])
def test_pairs_are_cropped_and_turned_alike(pairs, clips, scale, folder):
    make = sampler(
        root=str(pairs / "gt"), lq_root=str(pairs / folder), degradation="given", scale=scale
    )
    small = {name: 255 - frames for name, frames in clips.items()}
    if scale == 4:
        small = {
            name: noise(len(x), len(x), x.shape[1] // 4, x.shape[2] // 4)
            for name, x in clips.items()
        }
    seen = []
    for index in range(60):
        sample = make.map(index)
        name, start, y, x, pose = place(to_8_bit(sample["gt"]), clips)
        assert y % scale == x % scale == 0
        n, (top, left) = 16 // scale, (y // scale, x // scale)
        expected = small[name][start : start + 3, top : top + n, left : left + n]
        np.testing.assert_array_equal(posed(to_8_bit(sample["lq"]), pose), expected)
        seen.append((name, start, y, x, pose))
    assert {pose for *_, pose in seen} == set(POSES)
    assert {start for name, start, *_ in seen if name == "a"} == {0, 1, 2}
    assert {start for name, start, *_ in seen if name == "b"} == {0, 1}
    assert len({y for _, _, y, _, _ in seen}) > 4 and len({x for *_, x, _ in seen}) > 3
    # Drawn by frames: 5 of 9 from the first.
    assert 22 <= sum(name == "a" for name, *_ in seen) <= 45


@pytest.mark.parametrize(
    ("degradation", "degrade"), [("bicubic", bicubic_down), ("blur_down", blur_down)]
)
def test_lr_is_made_of_plain_folders(pairs, clips, degradation, degrade):
    make = sampler(root=str(pairs / "gt"), degradation=degradation)
    for index in range(8):
        sample = make.map(index)
        name, start, y, x, pose = place(to_8_bit(sample["gt"]), clips)
        frames = clips[name]
        frames = frames[:, : frames.shape[1] // 4 * 4, : frames.shape[2] // 4 * 4]
        whole = degrade(frames[start : start + 3])
        expected = whole[:, y // 4 : y // 4 + 4, x // 4 : x // 4 + 4]
        np.testing.assert_array_equal(posed(to_8_bit(sample["lq"]), pose), expected)


def test_reversal_and_mirror(pairs, clips):
    options = {"root": str(pairs / "gt"), "mirror": True}
    sample = sampler(**options).map(3)
    for stream in sample.values():
        assert len(stream) == 6
        np.testing.assert_array_equal(stream[3:], stream[2::-1])
    place(to_8_bit(sample["gt"][:3]), clips)
    backwards = sampler(**options, reverse_fraction=1.0).map(3)
    place(to_8_bit(backwards["gt"][2::-1]), clips)
    halves = sampler(**options, reverse_fraction=0.5)
    forwards = sampler(**options, reverse_fraction=0.0)
    kept = [np.array_equal(halves.map(i)["gt"], forwards.map(i)["gt"]) for i in range(40)]
    assert 10 < sum(kept) < 30


def test_noise_is_added_last_with_one_level_for_each_sample(pairs, clips):
    make = sampler(root=str(pairs / "gt"), degradation="noise", scale=1, mirror=True)
    levels, extremes = [], []
    for index in range(40):
        sample = make.map(index)
        lq, gt = sample["lq"], sample["gt"]
        assert lq.dtype == np.float32 and lq.shape == (6, 16, 16, 4) and gt.shape[-1] == 3
        (level,) = np.unique(lq[..., 3])
        difference = lq[..., :3] - gt / np.float32(255)
        # 4608 values: their deviation is known to 1 %, five times that is allowed for.
        assert abs(difference.std() / level - 1) < 0.06
        assert abs(difference.mean()) < 5 * level / np.sqrt(difference.size)
        levels.append(255 * level)
        extremes.append((lq.min(), lq.max()))
        # Independent for every frame, also of the mirrored half.
        assert abs(np.corrcoef(difference[0].ravel(), difference[-1].ravel())[0, 1]) < 0.2
    assert 0 <= min(levels) < 10 and 40 < max(levels) <= 50
    assert abs(np.mean(levels) - 25) < 12
    assert min(extremes)[0] < -0.1 and max(high for _, high in extremes) > 1.1  # not clipped
    fixed = sampler(root=str(pairs / "gt"), degradation="noise", scale=1, sigma=(15, 15)).map(0)
    assert np.unique(fixed["lq"][..., 3]) == np.float32(15 / 255)


def test_video_files_serve_as_they_are(tmp_path, clips):
    frames = films.noise(9)
    films.make(tmp_path / "film.mkv", frames)
    write(tmp_path / "folder", clips["a"])
    make = sampler(root=str(tmp_path))
    seen = {place(to_8_bit(make.map(i)["gt"]), {"film": frames, **clips})[:2] for i in range(40)}
    assert {start for name, start in seen if name == "film"} == set(range(7))
    assert {name for name, _ in seen} == {"film", "a"}
    alone = sampler(root=str(tmp_path / "film.mkv"))
    place(to_8_bit(alone.map(0)["gt"]), {"film": frames})


def test_batches_of_videos_and_folders_resume(tmp_path, clips):
    films.make(tmp_path / "film.mkv", films.noise(9))
    write(tmp_path / "folder", clips["a"])
    config = {**OWN, "root": str(tmp_path)}
    iterator = iter(train(config, seed=3, batch_size=2))
    next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = next(iterator)
    resumed = iter(train(config, seed=3, batch_size=2))
    resumed.set_state(state)
    batch = next(resumed)
    make = Sampler(DataOptions.read(config), 3)
    for key in ("lq", "gt"):
        np.testing.assert_array_equal(batch[key], expected[key])
        np.testing.assert_array_equal(batch[key][1], make.map(3)[key])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_parts_of_a_video_equal_the_whole(tmp_path, suffix):
    """Short groups of pictures with B-frames, so that most starts are not key frames."""
    frames = films.smooth(40)
    options = {"g": "7", "bf": "2", "qp": "10"}
    codec = {"codec": "libx264", "pix_fmt": "yuv420p"}
    path = films.make(tmp_path / f"film{suffix}", frames, **codec, options=options)
    whole = VideoReader(path).read_all()
    assert len(whole) == 40
    (clip,) = plain.find(path)
    assert (clip.frames, clip.height, clip.width) == (40, 48, 64)
    clip = pickle.loads(pickle.dumps(clip))
    for start, stop, step in [(0, 3, 1), (13, 18, 1), (22, 35, 4), (39, 40, 1), (35, 99, 1)]:
        np.testing.assert_array_equal(clip.read(start, stop, step), whole[start:stop:step])


def test_seeking_does_not_read_from_the_start(tmp_path, monkeypatch):
    frames = films.smooth(60)
    path = films.make(
        tmp_path / "film.mp4", frames, codec="libx264", pix_fmt="yuv420p", options={"g": "10"}
    )
    reader = VideoReader(path)
    decoded = []
    decode = VideoReader._decode
    monkeypatch.setattr(
        VideoReader,
        "_decode",
        lambda self, *rest: (decoded.append(1) or item for item in decode(self, *rest)),
    )
    assert len(list(reader.read_range(55, 58))) == 3
    assert len(decoded) <= 10


def test_16_bit_images_are_rounded(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (3, 20, 20, 3)).astype(np.uint16)
    write(tmp_path / "deep", deep)
    (clip,) = plain.find(tmp_path)
    expected = np.floor(deep / 257.0 + 0.5)
    np.testing.assert_array_equal(clip.read(0, 3), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "nowhere"}, "nowhere does not exist"),
        ({"num_frames": 5}, r"\['b'\].*fewer than num_frames = 5"),
        ({"gt_size": 20}, r"\['b'\].*smaller than 23 pixels"),
        ({"photo_fraction": 0.5}, "photos only in the dataset 'real'"),
        ({"degradation": "given"}, "name the degraded frames in lq_root"),
        ({"degradation": "noise"}, "'noise', which does not go with data.scale 4"),
        ({"degradation": "bicubic", "scale": 1}, "'bicubic', which does not go with .* 1"),
        ({"sigma": (50, 10)}, r"sigma is \(50, 10\)"),
        ({"dataset": "redz"}, "data.dataset is 'redz'; there are"),
        ({"num_frames": 0}, "data.num_frames is 0"),
        ({"exclude": ("a", "b")}, "no clips or photos left"),
        ({"dataset": "gopro", "root": "data"}, r"(?s)GOPRO_Large.zip.*prepare gopro"),
    ],
)
def test_mistakes_are_found_before_the_first_batch(pairs, change, message):
    with pytest.raises(UserError, match=message):
        train({**OWN, "root": str(pairs / "gt"), **change}, seed=0, batch_size=1)


def test_pairs_that_do_not_fit_are_named(tmp_path, clips):
    write(tmp_path / "gt/a", clips["a"])
    write(tmp_path / "gt/c", clips["a"])
    config = {
        **OWN,
        "root": str(tmp_path / "gt"),
        "lq_root": str(tmp_path / "lq"),
        "degradation": "given",
        "scale": 1,
    }
    for name, frames, message in (
        ("a", clips["a"][:4], r"gt/c.* no counterpart"),
        ("c", clips["a"], "a has 5 sharp, but 4 degraded frames"),
    ):
        write(tmp_path / "lq" / name, frames)
        with pytest.raises(UserError, match=message):
            train(config, seed=0, batch_size=1)
    with pytest.raises(UserError, match="c is 41x37, its degraded version 41x37; .*must be 10x9"):
        train({**config, "scale": 4, "exclude": ("a",)}, seed=0, batch_size=1)


def test_broken_files_of_all_clips_are_named(tmp_path, clips):
    write(tmp_path / "a", clips["a"])
    write(tmp_path / "b", clips["b"])
    whole = (tmp_path / "a/3.png").read_bytes()
    (tmp_path / "a/3.png").write_bytes(whole[:-30])
    (tmp_path / "b/1.png").write_bytes(archives.encoded(clips["a"][0], ".png"))
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"(?s)3 clips.*a/3\.png .*b/1\.png is 41x37.*film\.mp4"):
        plain.find(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no clips"):
        plain.find(tmp_path / "empty")


def test_a_prepared_set_trains_by_its_published_numbers(tmp_path, monkeypatch):
    archives.small_counts(monkeypatch)
    source = archives.unpack(archives.gopro(), tmp_path / "download")
    tfds_builder.prepare("gopro", source, tmp_path / "data")
    config = {**OWN, "dataset": "gopro", "root": str(tmp_path / "data"), "scale": 1}
    make = sampler(**{**config, "degradation": "given"})
    sharp, blurred = {}, {}
    for pair in make.videos:
        sharp[pair.gt.name] = pair.gt.read(0, 3)
        blurred[pair.gt.name] = pair.lq.read(0, 3)
    assert set(sharp) == {"GOPR0372_07_00", "GOPR0372_07_01"}
    for index in range(5):
        sample = make.map(index)
        gt, lq = to_8_bit(sample["gt"]), to_8_bit(sample["lq"])
        found = [
            (name, y, x, pose)
            for name, frames in sharp.items()
            for pose in POSES
            for y in range(25)
            for x in range(37)
            if np.array_equal(frames[:, y : y + 16, x : x + 16], posed(gt, pose))
        ]
        assert any(
            np.array_equal(blurred[name][:, y : y + 16, x : x + 16], posed(lq, pose))
            for name, y, x, pose in found
        )
    with pytest.raises(UserError, match="scale 1, but data.scale is 4"):
        sampler(**{**config, "degradation": "given", "scale": 4})
    with pytest.raises(UserError, match="fewer than num_frames = 4"):
        sampler(**{**config, "degradation": "noise", "num_frames": 4})
    workers = {**config, "degradation": "given", "num_workers": 1}
    batch = next(iter(train(workers, seed=0, batch_size=2)))
    np.testing.assert_array_equal(batch["lq"][1], make.map(1)["lq"])


def test_validation_clips_are_cut_as_asked(pairs, clips):
    config = {
        **OWN,
        "root": "unused",
        "validation_dataset": "own",
        "validation_root": str(pairs / "gt"),
        "validation_frames": 2,
        "validation_size": 16,
    }
    first, second = validation(config)
    assert (first["name"], second["name"]) == ("a", "b")
    # 37x41 is cut to 36x40; the middle 16 begin at 8 and 12, multiples of 4.
    np.testing.assert_array_equal(first["gt"], clips["a"][:2, 8:24, 12:28])
    whole = bicubic_down(clips["a"][:2, :36, :40])
    np.testing.assert_array_equal(first["lq"], whole[:, 2:6, 3:7])
    (only,) = validation({**config, "validation_clips": 1, "mirror": True})
    np.testing.assert_array_equal(only["gt"], first["gt"][[0, 1, 1, 0]])
    with pytest.raises(UserError, match="is 20x24; data.validation_size is 24"):
        validation({**config, "validation_size": 24})

    given = {**config, "degradation": "given", "lq_root": "unused", "scale": 1}
    given["validation_lq_root"] = str(pairs / "lq")
    pair = validation(given)[1]
    np.testing.assert_array_equal(pair["lq"], 255 - pair["gt"])

    noisy = {**config, "degradation": "noise", "scale": 1, "validation_sigma": 20.0}
    one, again = validation(noisy)[0], validation(noisy)[0]
    np.testing.assert_array_equal(one["lq"], again["lq"])
    assert one["lq"].shape == (2, 16, 16, 4) and one["gt"].dtype == np.uint8
    assert abs((one["lq"][..., :3] - one["gt"] / 255).std() * 255 / 20 - 1) < 0.1
    assert validation({**config, "validation_dataset": "none"}) == []
    with pytest.raises(UserError, match="bundled clips have no degraded"):
        validation({**OWN, "degradation": "given", "lq_root": "x", "validation_dataset": "bundled"})


@pytest.mark.parametrize(
    ("options", "held", "left"),
    [
        ({"validation_names": ("b",)}, ["b"], ["a"]),
        ({"validation_clips": 1}, ["a"], ["b"]),
        ({"validation_clips": 1, "exclude": ("a",), "validation_names": ()}, None, None),
    ],
)
def test_held_out_clips_are_validated_on_and_not_drawn(pairs, clips, options, held, left):
    own = {"dataset": "own", "root": str(pairs / "gt"), "lq_root": str(pairs / "lq"), "scale": 1}
    own |= {"degradation": "given", "validation_dataset": "held_out", **options}
    options = DataOptions.read({**OWN, **own})
    if held is None:
        with pytest.raises(UserError, match="has 1 clips: none would be left to train on"):
            Sampler(options, 0)
        return
    assert [pair.gt.name for pair in Sampler(options, 0).videos] == left
    found = pipeline.validation(options)
    assert [clip["name"] for clip in found] == held
    np.testing.assert_array_equal(found[0]["gt"], clips[held[0]])
    np.testing.assert_array_equal(found[0]["lq"], 255 - clips[held[0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name the clips in validation_names, or say in validation_clips how many"),
        ({"validation_names": ("c",)}, r"validation_names has \['c'\]; the clips in .*'a', 'b'"),
        ({"validation_clips": 1, "validation_root": "x"}, "validation_root is x, which has no"),
        ({"validation_dataset": "none", "validation_names": ("a",)}, "is for validation_dataset"),
    ],
)
def test_what_cannot_be_held_out_is_refused(pairs, options, message):
    held = {"root": str(pairs / "gt"), "validation_dataset": "held_out", **options}
    with pytest.raises(UserError, match=message):
        Sampler(DataOptions.read({**OWN, **held}), 0)
