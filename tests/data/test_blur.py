"""Motion blur: known properties, an average by brute force, and the samples made with it."""

import json

import numpy as np
import pytest

from rvrt_jax.data import blur, camera, pipeline
from rvrt_jax.data.options import DataOptions
from rvrt_jax.data.sampler import Sampler
from rvrt_jax.errors import UserError

OPTIONS = {
    "num_frames": 3,
    "gt_size": 32,
    "scale": 1,
    "degradation": "motion_blur",
    "max_zoom": 1.5,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two clips that move by a pixel a frame, and a photo."""
    folder = tmp_path_factory.mktemp("prepared")
    y, x = np.mgrid[:70, :90]
    waves = np.stack([np.sin(0.3 * x + k) + np.sin(0.2 * y - k) for k in range(3)], axis=-1)
    photo = (127 + 60 * waves).astype(np.uint8)
    clip = np.stack([np.roll(photo, i, axis=1) for i in range(9)])
    entries = []
    for name, array in {"street": clip, "yard": clip[:, ::-1], "leaf": photo}.items():
        np.save(folder / f"{name}.npy", array)
        frames = len(array) if array.ndim == 4 else 1
        kind = "clip" if array.ndim == 4 else "photo"
        entry = {"name": name, "kind": kind, "file": f"{name}.npy", "frames": frames}
        entries.append(entry | {"height": 70, "width": 90, "max_step": 2, "weight": 1.0})
    (folder / "manifest.json").write_text(json.dumps({"entries": entries}))
    return str(folder)


def test_an_exposure_equals_a_loop_over_pixels():
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 3)).astype(np.uint8)
    expected = np.zeros((2, 3, 5, 3))
    for place in np.ndindex(2, 3, 5, 3):
        levels = [float(frames[(3 * place[0] + j, *place[1:])]) for j in range(3)]
        light = sum((level / 255) ** 2.2 for level in levels) / 3
        expected[place] = 255 * light ** (1 / 2.2)
    # Rounding to 8 bits, and float32 where the value is near a half.
    np.testing.assert_allclose(blur.expose(frames, 3), expected, atol=0.501)


def test_what_does_not_move_stays_as_it_is():
    every_level = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    still = every_level.repeat(34, axis=0)
    np.testing.assert_array_equal(blur.expose(still, 17), still[:2])


def test_a_flat_clip_stays_flat_however_the_camera_shakes():
    flat = np.full((3, 40, 50, 3), 77, np.uint8)
    for frames in blur.shaken(flat, np.random.default_rng(0), steps=5):
        np.testing.assert_array_equal(frames, flat[:, :24, :34])


def test_a_shaken_clip_is_the_average_of_shifted_ones():
    """At integer shifts a view is a crop; here the shake is replaced by a walk of whole pixels."""
    clip = np.random.default_rng(1).integers(0, 256, (1, 40, 50, 3)).astype(np.uint8)
    views = [blur._moved(clip[0], np.array([x, 0.0]), 8) for x in (-2, 0, 3)]
    for x, view in zip((-2, 0, 3), views, strict=True):
        np.testing.assert_array_equal(view, clip[0, 8:-8, 8 + x : 42 + x])


def test_a_still_camera_blurs_nothing(root, monkeypatch):
    def still(rng, num_frames, *, substeps=1, **_):
        moments = num_frames * substeps
        return camera.CameraPath(np.zeros((moments, 2)), np.zeros(moments), np.ones(moments))

    monkeypatch.setattr(camera, "random_path", still)
    sampler = Sampler(DataOptions.read({**OPTIONS, "root": root, "photo_fraction": 1.0}), seed=0)
    for index in range(4):
        sample = sampler.map(index)
        np.testing.assert_array_equal(sample["lq"], sample["gt"])


def test_a_path_with_moments_passes_through_that_without():
    arguments = {"max_speed": 5.0, "max_zoom": 2.0}
    coarse = camera.random_path(np.random.default_rng(0), 4, **arguments)
    fine = camera.random_path(np.random.default_rng(0), 4, **arguments, substeps=5)
    middles = fine.at(np.arange(4) * 5 + 2)
    np.testing.assert_allclose(middles.shift, coarse.shift, atol=1e-12)
    np.testing.assert_allclose(middles.angle, coarse.angle, atol=1e-12)
    np.testing.assert_allclose(middles.zoom, coarse.zoom, atol=1e-12)


def test_a_film_is_blurred_by_the_average_of_its_neighbouring_frames(root):
    """A crop of a texture that moves by whole pixels: its blur is known from the sharp frames."""
    options = {"photo_fraction": 0.0, "camera_fraction": 0.0, "blur_frames": 3}
    options["max_zoom"] = DataOptions.max_zoom  # there is no camera
    sampler = Sampler(DataOptions.read({**OPTIONS, **options, "root": root}), seed=0)
    clip = next(pair.gt for pair in sampler.videos if pair.gt.name == "street")
    frames = clip.read(0, clip.frames)
    lq, gt = sampler._filmed_blurred(clip, np.random.default_rng(3))
    places = [
        (t, y, x)
        for t in range(1, 8)
        for y in range(39)
        for x in range(59)
        if np.array_equal(frames[t, y : y + 32, x : x + 32], gt[0])
    ]
    assert places
    t, y, x = places[0]
    crop = frames[t - 1 : t + 2, y : y + 32, x : x + 32]
    np.testing.assert_array_equal(lq[0], blur.expose(crop, 3)[0])


def test_samples_are_blurred_and_depend_on_seed_and_index_alone(root):
    options = DataOptions.read({**OPTIONS, "root": root})
    first, again = Sampler(options, seed=1), Sampler(options, seed=1)
    differences = []
    for index in (5, 0, 3):
        sample, same = first.map(index), again.map(index)
        assert sample["lq"].shape == sample["gt"].shape == (3, 32, 32, 3)
        np.testing.assert_array_equal(sample["lq"], same["lq"])
        np.testing.assert_array_equal(sample["gt"], same["gt"])
        differences.append(np.abs(sample["lq"].astype(int) - sample["gt"]).mean())
    assert max(differences) > 1


def test_the_shutter_is_open_for_an_odd_number_of_moments_half_to_all():
    drawn = {blur.shutter(np.random.default_rng(seed), 17) for seed in range(200)}
    assert drawn == {9, 11, 13, 15, 17}
    assert {blur.shutter(np.random.default_rng(seed), 1) for seed in range(20)} == {1}


def test_held_out_clips_are_validated_on_and_never_drawn(root):
    held = {"validation_dataset": "held_out", "validation_names": ("yard",)}
    config = {**OPTIONS, "root": root, **held}
    assert [pair.gt.name for pair in Sampler(DataOptions.read(config), 0).videos] == ["street"]
    clip, same = (pipeline.validation(DataOptions.read(config))[0] for _ in range(2))
    assert clip["name"] == "yard"
    assert clip["lq"].shape == clip["gt"].shape == (9, 54, 74, 3)
    np.testing.assert_array_equal(clip["lq"], same["lq"])
    assert not np.array_equal(clip["lq"], clip["gt"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur_steps": 4}, "blur_steps is 4; it must be odd"),
        ({"blur_frames": 9}, "num_frames = 3 and blur_frames - 1 = 8"),
        ({"scale": 4}, "'motion_blur', which does not go with data.scale 4"),
        ({"degradation": "bicubic", "scale": 4, "blur_steps": 5}, "blur_steps is 5, which has no"),
        (
            {"degradation": "bicubic", "scale": 4, "blur_frames": 3},
            "blur_frames is 3, which has no",
        ),
    ],
)
def test_mistakes_are_told(root, change, message):
    with pytest.raises(UserError, match=message):
        options = DataOptions.read({**OPTIONS, "root": root, **change})
        pipeline.train(options, seed=0, batch_size=1)


def test_views_of_a_running_clip_follow_its_frames():
    clip = np.stack([np.full((20, 20, 3), level, np.uint8) for level in (10, 90, 200)])
    here = np.array([[1.0, 0, 6], [0, 1, 6]])
    for n, count in ((1, 3), (3, 3), (1, 1)):
        views = camera.render(clip[:count], np.stack([here] * (n * count)), 8)
        assert views.shape == (n * count, 8, 8, 3)
        assert [int(v[4, 4, 0]) for v in views] == [
            int(x) for x in np.repeat(clip[:count, 0, 0, 0], n)
        ]
