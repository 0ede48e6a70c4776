"""Cuts are found where scenes change, and nowhere else."""

import numpy as np
import pytest
from helpers import films

from rvrt_jax.data.clips import BUNDLED, load_folders
from rvrt_jax.restoration import scenes

CLIPS = load_folders(BUNDLED)


def lengths(frames):
    return [sum(1 for _ in scene) for scene in scenes.split(frames)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_real_scenes_are_told_apart(dtype):
    factor = np.iinfo(dtype).max // 255
    parts = [CLIPS["city_night"], CLIPS["cup_hand"][:5], CLIPS["dog_phone"], CLIPS["cup_hand"][5:]]
    frames = [frame.astype(dtype) * factor for part in parts for frame in part]
    assert lengths(iter(frames)) == [12, 5, 12, 7]


@pytest.mark.parametrize("name", CLIPS)
def test_a_real_scene_stays_whole(name):
    assert lengths(CLIPS[name]) == [12]


def test_motion_noise_fades_and_flashes_are_no_cuts():
    rng = np.random.default_rng(0)
    moving = films.smooth(30)
    assert lengths(moving) == [30]
    noisy = (moving[:1] + rng.normal(0, 25, (30, *moving.shape[1:]))).clip(0, 255).astype(np.uint8)
    assert lengths(noisy) == [30]
    assert lengths(rng.integers(0, 255, (30, 24, 32, 3)).astype(np.uint8)) == [30]
    fading = np.linspace(1, 0, 30)[:, None, None, None] * moving[:1]
    assert lengths(fading.astype(np.uint8)) == [30]
    flash = moving.copy()
    flash[11] = 255
    assert lengths(flash) == [30]


def test_a_cut_in_the_last_frame_and_after_the_first_one():
    a, b = CLIPS["cup_hand"], CLIPS["dog_phone"]
    assert lengths([*a, b[0]]) == [12, 1]
    assert lengths([a[0], *b]) == [1, 12]
    assert lengths([a[0]]) == [1] and lengths([]) == []


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (2000, 16)])
def test_any_size(size):
    frames = np.zeros((6, *size, 3), np.uint8)
    frames[3:] = 200
    assert lengths(frames) == [3, 3]


def test_frames_are_read_one_ahead():
    read = 0

    def frames():
        nonlocal read
        for frame in CLIPS["cup_hand"]:
            read += 1
            yield frame

    for given, _ in enumerate(next(scenes.split(frames())), 1):
        assert read <= given + 1
