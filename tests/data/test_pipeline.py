"""The training input on a small made-up data set, and the clips of the package."""

import errno
import hashlib
import itertools
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from rvrt_jax import files
from rvrt_jax.data import camera, clips, pipeline
from rvrt_jax.data.augment import augment
from rvrt_jax.data.degrade import bicubic_down, blur_down
from rvrt_jax.data.options import DataOptions
from rvrt_jax.data.sampler import Sampler
from rvrt_jax.errors import UserError

SMALL = {"num_frames": 3, "gt_size": 32, "max_zoom": 1.5}


def train(config, **shard):
    return pipeline.train(DataOptions.read(config), **shard)


def validation(config):
    return pipeline.validation(DataOptions.read(config))


def texture(seed, *shape):
    """A smooth random image, so that interpolation hardly changes it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-3], : shape[-2]]
    image = np.zeros(shape)
    for channel in range(3):
        for _ in range(5):
            fy, fx, phase = *rng.uniform(-0.3, 0.3, 2), rng.uniform(0, 6)
            image[..., channel] += np.sin(fy * y + fx * x + phase)
    return (127 + 25 * image).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    arrays = {
        "street": rng.integers(0, 256, (9, 67, 90, 3)).astype(np.uint8),
        "yard": np.stack([np.roll(texture(1, 70, 75, 3), i, axis=1) for i in range(4)]),
        "stone": texture(2, 120, 97, 3),
        "leaf": texture(3, 80, 140, 3),
    }
    entries = []
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        clip = array.ndim == 4
        entries.append(
            {
                "name": name,
                "kind": "clip" if clip else "photo",
                "file": f"{name}.npy",
                "frames": len(array) if clip else 1,
                "height": array.shape[-3],
                "width": array.shape[-2],
                "max_step": 2,
                "weight": 1.0,
            }
        )
    (folder / "manifest.json").write_text(json.dumps({"entries": entries}))
    return str(folder)


def same(a, b):
    return all(np.array_equal(a[key], b[key]) for key in ("lq", "gt"))


@pytest.mark.parametrize("failures", [3, 4])
def test_a_read_that_fails_for_a_moment_changes_no_sample(root, monkeypatch, failures):
    sampler = Sampler(DataOptions.read({**SMALL, "root": root, "photo_fraction": 0.0}), seed=0)
    expected = sampler.map(7)
    cls, left = type(sampler.videos[0].gt), failures
    whole = cls.read

    def read(self, *arguments):
        nonlocal left
        if left:
            left -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return whole(self, *arguments)

    monkeypatch.setattr(cls, "read", read)
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    if failures == 4:
        with pytest.raises(OSError, match="Stale"):
            sampler.map(7)
    assert same(sampler.map(7), expected) and not left


@pytest.mark.parametrize("degradation", ["bicubic", "blur_down"])
def test_batches_have_their_shape_type_and_range(root, degradation):
    config = {**SMALL, "root": root, "degradation": degradation, "parallax_fraction": 0.5}
    batch = next(iter(train(config, seed=0, batch_size=5)))
    assert batch["lq"].shape == (5, 3, 8, 8, 3)
    assert batch["gt"].shape == (5, 3, 32, 32, 3)
    for array in batch.values():
        assert array.dtype == np.uint8 and array.flags.c_contiguous
        assert array.min() < array.max()


@pytest.mark.parametrize("degrade", [bicubic_down, blur_down])
def test_the_lr_of_a_crop_is_the_crop_of_the_whole_lr(root, degrade):
    name = {bicubic_down: "bicubic", blur_down: "blur_down"}[degrade]
    options = DataOptions.read({**SMALL, "root": root, "degradation": name, "tries": 1})
    sampler = Sampler(options, seed=0)
    street = sampler.videos[0].gt.read(0, 3)[:, :64, :88]
    whole = degrade(street)
    corners = set()
    for seed in range(60):
        lq, gt = sampler._as_filmed(clips.WholeFrames(street), np.random.default_rng(seed))
        places = [
            (y, x)
            for y in range(0, 33, 4)
            for x in range(0, 57, 4)
            if np.array_equal(street[:, y : y + 32, x : x + 32], gt)
        ]
        assert len(places) == 1
        y, x = places[0]
        corners.add((y == 0, x == 0, y == 32, x == 56))
        np.testing.assert_array_equal(lq, whole[:, y // 4 : y // 4 + 8, x // 4 : x // 4 + 8])
    assert len(corners) > 4  # edges of the frame have been among them


def test_samples_depend_on_seed_and_index_alone(root):
    config = {**SMALL, "root": root}
    options = DataOptions.read(config)
    first, again = Sampler(options, seed=1), Sampler(options, seed=1)
    order = [7, 0, 3]
    drawn = {index: first.map(index) for index in order}
    assert all(same(again.map(index), drawn[index]) for index in sorted(order))
    assert not same(drawn[0], drawn[3])
    assert not same(Sampler(options, seed=2).map(0), drawn[0])


# SHA-256 of 20 samples as float32, LQ before GT, as version 1.0 of the records' code made them.
SAMPLES = [
    ({}, "b1a3258ac87ef4568d4ea7aa1b740714"),
    ({"tries": 1, "reverse_fraction": 0.0}, "d18654399332295e5347786958c59cbe"),
    ({"mirror": True}, "a7d2577b1310da6948cfbc41d6eb72c7"),
    ({"scale": 1, "degradation": "noise"}, "0c7ba31ae39c303b1c72c92c2c0760a9"),
]


@pytest.mark.parametrize(("changes", "expected"), SAMPLES)
def test_samples_are_those_of_always(tmp_path, changes, expected):
    entries, rng = [], np.random.default_rng(0)
    for name, shape in (("street", (9, 67, 90, 3)), ("yard", (4, 70, 75, 3))):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, shape, np.uint8))
        sizes = dict(zip(("frames", "height", "width"), shape, strict=False))
        rest = {"kind": "clip", "file": f"{name}.npy", "max_step": 2, "weight": 1.0}
        entries.append({"name": name, **sizes, **rest})
    (tmp_path / "manifest.json").write_text(json.dumps({"entries": entries}))
    options = {"num_frames": 3, "gt_size": 32, "photo_fraction": 0.0, "camera_fraction": 0.0}
    options = DataOptions.read({**options, "root": str(tmp_path), **changes})
    sampler, found = Sampler(options, seed=7), hashlib.sha256()
    for index in range(20):
        sample = sampler.map(index)
        for pixels in (sample["lq"], sample["gt"]):
            unit = pixels if pixels.dtype == np.float32 else pixels / np.float32(255)
            assert unit.dtype == np.float32
            found.update(unit.tobytes())
    assert found.hexdigest()[:32] == expected


@pytest.mark.parametrize("targets", [slice(1, 2), slice(-2, None)])
def test_targets_are_the_frames_that_are_wanted(root, targets):
    options = DataOptions.read({**SMALL, "root": root})
    whole, some = Sampler(options, seed=0), Sampler(options, seed=0, targets=targets)
    for index in range(5):
        a, b = whole.map(index), some.map(index)
        np.testing.assert_array_equal(b["lq"], a["lq"])
        np.testing.assert_array_equal(b["gt"], a["gt"][targets])
        assert sum(x.nbytes for x in b.values()) == pipeline.sample_bytes(options, targets)


def test_shards_divide_the_samples(root):
    config = {**SMALL, "root": root}
    whole = next(iter(train(config, seed=0, batch_size=4)))
    for shard in range(2):
        dataset = train(config, seed=0, batch_size=2, shard_index=shard, shard_count=2)
        part = next(iter(dataset))
        np.testing.assert_array_equal(part["gt"], whole["gt"][shard::2])


@pytest.mark.parametrize(("workers", "shards"), [(0, 1), (2, 1), (3, 1), (0, 2)])
def test_any_number_of_workers_and_shards_goes_on_from_a_batch(root, workers, shards):
    config = {**SMALL, "root": root}
    straight = itertools.islice(iter(train(config, seed=3, batch_size=2)), 3, 5)
    changed = {**config, "num_workers": workers}
    parts = [
        iter(
            train(
                changed, seed=3, batch_size=2 // shards, start=3, shard_index=i, shard_count=shards
            )
        )
        for i in range(shards)
    ]
    for expected in straight:
        found = [next(part) for part in parts]
        for key in ("lq", "gt"):
            whole = np.empty_like(expected[key])
            for i, part in enumerate(found):
                whole[i::shards] = part[key]
            np.testing.assert_array_equal(whole, expected[key])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restored_iterator_continues_exactly(root, workers):
    config = {**SMALL, "root": root, "num_workers": workers}
    iterator = iter(train(config, seed=3, batch_size=2))
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(2)]
    resumed = iter(train(config, seed=3, batch_size=2))
    resumed.set_state(json.loads(json.dumps(state)))
    assert all(same(next(resumed), batch) for batch in expected)


def test_workers_give_the_batches_of_threads(root):
    config = {**SMALL, "root": root}
    threads = iter(train(config, seed=3, batch_size=2))
    workers = iter(train({**config, "num_workers": 2}, seed=3, batch_size=2))
    assert all(same(next(threads), next(workers)) for _ in range(3))


def test_sampler_is_a_small_pickle(root):
    sampler = Sampler(DataOptions.read({**SMALL, "root": root}), seed=0)
    content = pickle.dumps(sampler)
    assert len(content) < 5000  # paths and not pixels
    assert same(pickle.loads(content).map(5), sampler.map(5))


def test_workers_need_room_in_shared_memory(root, monkeypatch, tmp_path):
    """Two workers hold three batches each, of two samples of 3 frames of 32x32 with 8x8 LR."""
    config = {**SMALL, "root": root, "num_workers": 2, "prefetch": 4}
    needed = 2 * 3 * 2 * 3 * 3 * (32 * 32 + 8 * 8)
    monkeypatch.setattr(pipeline.workers, "SHARED_MEMORY", tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    train(config, seed=0, batch_size=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match="2 workers need.*--shm-size"):
        train(config, seed=0, batch_size=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_workers": -1}, "num_workers is -1"),
        ({"reverse_fraction": 2.0}, "reverse_fraction is 2.0; give 0 to 1"),
        ({"root": "nowhere"}, "rvrt_jax.data.prepare real --output nowhere"),
        ({"gt_size": 68}, r"\['street', 'yard'\].*smaller than 71"),
        ({"num_frames": 5}, r"\['yard'\].*fewer than num_frames = 5"),
        ({"gt_size": 30}, "not a multiple of scale 4"),
        ({"degradation": "jpeg"}, "'jpeg'"),
        ({"gt_sise": 32}, r"no option \['gt_sise'\]"),
        ({"exclude": ("street", "yard")}, "no clips or photos left"),
    ],
)
def test_mistakes_are_found_before_the_first_batch(root, change, message):
    with pytest.raises(UserError, match=message):
        train({**SMALL, "root": root, **change}, seed=0, batch_size=1)


def test_excluded_clips_are_not_drawn(root):
    config = {**SMALL, "root": root, "num_frames": 5, "exclude": ("yard",)}
    assert next(iter(train(config, seed=0, batch_size=1)))["gt"].shape[1] == 5


def test_augmentation_treats_all_alike_and_reaches_every_pose():
    gt = np.random.default_rng(0).random((2, 8, 8, 3))
    poses = set()
    for seed in range(100):
        lq, same_gt = augment((bicubic_down(gt), gt), np.random.default_rng(seed), reverse=0.5)
        np.testing.assert_allclose(lq, bicubic_down(same_gt), atol=1e-12)
        poses.add(same_gt.tobytes())
    assert len(poses) == 16  # 8 of the square, forwards and backwards


def test_a_still_camera_sees_the_source_itself():
    source = texture(4, 60, 80, 3)[None]
    still = camera.CameraPath(np.zeros((3, 2)), np.zeros(3), np.ones(3))
    matrices = still.matrices(21)
    low, _ = camera.bounds(matrices, 21)
    moved = (
        matrices + np.array([[0, 0, 30], [0, 0, 20]]) - np.array([[0, 0, low[0]], [0, 0, low[1]]])
    )
    views = camera.render(source, moved, 21)
    # Half-pixel cubic samples averaged in pairs: a slight blur of a smooth image, no shift.
    expected = source[0, 20:41, 30:51].astype(int)
    assert np.abs(views - expected).max() <= 4
    shifted = source[0, 20:41, 31:52].astype(int)
    assert np.abs(views[0] - expected).mean() < 0.2 * np.abs(shifted - expected).mean()


def test_a_zoomed_view_is_the_average_of_its_pixels():
    source = texture(6, 90, 90, 3)[None]
    matrices = camera.CameraPath(np.zeros((1, 2)), np.zeros(1), np.full(1, 4.0)).matrices(11)
    # The first view pixel goes to the centre of the block [12:16, 20:24].
    matrices[:, :, 2] = [21.5, 13.5]
    view = camera.render(source, matrices, 11)[0].astype(float)
    blocks = source[0, 12:56, 20:64].reshape(11, 4, 11, 4, 3).mean((1, 3))
    # The contrast of the texture is 40 levels; a shift by a pixel would cost about 7.
    assert np.abs(view - blocks).mean() < 3


def test_a_zoomed_view_shows_no_aliasing():
    y, x = np.mgrid[:120, :120]
    board = np.repeat(((y + x) % 2 * 255).astype(np.uint8)[None, ..., None], 3, axis=-1)
    for zoom in (2.0, 2.7, 4.0):
        matrices = camera.CameraPath(np.zeros((1, 2)), np.zeros(1), np.full(1, zoom)).matrices(11)
        matrices[:, :, 2] = [30.2, 25.9]
        # The board has a contrast of 127; at most 3 % of it may come through.
        assert np.abs(camera.render(board, matrices, 11).astype(int) - 127).max() <= 4


@pytest.mark.parametrize("seed", range(20))
def test_cameras_stay_inside_the_source(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(60, 200, 2)
    path = camera.random_path(rng, 7, max_speed=40, max_zoom=4)
    matrices = camera.place(rng, camera.fit(path, 40, h, w).matrices(40), 40, h, w)
    low, high = camera.bounds(matrices, 40)
    assert low.min() >= 1.999 and high[0] <= w - 2.999 and high[1] <= h - 2.999
    assert not np.any(camera.render(np.full((1, h, w, 3), 200, np.uint8), matrices, 40) != 200)


def test_pan_moves_the_picture_by_its_speed():
    source = texture(5, 100, 200, 3)[None]
    shift = np.array([[-8.0, 0], [0, 0], [8, 0]])
    matrices = camera.CameraPath(shift, np.zeros(3), np.ones(3)).matrices(40)
    views = camera.render(source, matrices + np.array([[0, 0, 90], [0, 0, 50]]), 40).astype(int)
    assert np.abs(views[0][:, 8:] - views[1][:, :-8]).max() <= 1
    assert np.abs(views[1][:, 8:] - views[2][:, :-8]).max() <= 1


def test_bundled_clips_are_the_published_ones():
    manifest = json.loads((clips.BUNDLED / "manifest.json").read_text())
    loaded = clips.load_folders(clips.BUNDLED)
    assert sorted(loaded) == sorted(manifest)
    for name, frames in loaded.items():
        assert frames.shape == (12, 192, 320, 3)
        assert hashlib.sha256(frames.tobytes()).hexdigest() == manifest[name]["sha256_rgb"]


def test_validation_clips_come_whole():
    result = validation(SMALL)
    assert [clip["name"] for clip in result] == ["city_night", "cup_hand", "dog_phone"]
    for clip in result:
        np.testing.assert_array_equal(clip["lq"], bicubic_down(clip["gt"]))
        assert clip["gt"].shape == (12, 192, 320, 3)
