"""Sliding windows: which frames, how often each is looked at, and the same result as naively."""

import functools
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from einops import repeat
from helpers import goldens
from helpers.toy import PARAMS, Slide

from rvrt_jax.errors import UserError
from rvrt_jax.restoration import plan as planning
from rvrt_jax.restoration import programs, segments, sliding
from rvrt_jax.restoration.ensemble import TURNS, turned, turned_back
from rvrt_jax.restoration.restore import restore, restore_frame, restore_stream
from rvrt_jax.restoration.settings import RestoreSettings


@pytest.fixture
def seen(monkeypatch):
    """Of each call of `features`: how many frames, and how many of them not to fill it up."""
    counts = []
    original = programs.features

    def features(model, params, frames):
        counts.append((len(frames), len({np.asarray(frame).tobytes() for frame in frames})))
        return original(model, params, frames)

    features.lower = original.lower
    monkeypatch.setattr(programs, "features", features)
    return counts


def naively(video, model, border):
    """Every window on its own."""
    out = []
    for centre in range(len(video)):
        indices = sliding.frame_indices(centre, len(video), model.window, border)
        total = sum(model.weight(i) * video[j] for i, j in enumerate(indices))
        out.append(total + 10 * video[centre])
    return repeat(np.stack(out), "t h w c -> t (h i) (w j) c", i=model.scale, j=model.scale)


GOLDEN = json.loads((goldens.GOLDEN / "edvr" / "frame_indices.json").read_text())


@pytest.mark.parametrize("border", sliding.RULES)
def test_golden_frame_indices(border):
    cases = [case for case in GOLDEN if case["padding"] == border]
    assert len(cases) == 28
    for case in cases:
        length, window, centre = case["max_frame_num"], case["num_frames"], case["crt_idx"]
        expected = case["indices"]
        if border.endswith("circle") and length < window:  # where the published code fails
            expected = np.clip(np.arange(window) - window // 2 + centre, 0, length - 1).tolist()
        assert sliding.frame_indices(centre, length, window, border) == expected


@pytest.mark.parametrize("border", sliding.RULES)
@pytest.mark.parametrize("length", range(1, 9))
def test_indices_never_leave_the_clip(border, length):
    for window in (3, 5, 7):
        for centre in range(length):
            indices = sliding.frame_indices(centre, length, window, border)
            assert len(indices) == window and indices[window // 2] == centre
            assert 0 <= min(indices) and max(indices) < length
            if border.endswith("circle") and length >= window:
                assert len(set(indices)) == window  # no frame twice


def clip(*shape, seed=0):
    return np.random.default_rng(seed).random((*shape, 3), np.float32)


@pytest.mark.parametrize("border", sliding.RULES)
@pytest.mark.parametrize(("length", "tile"), [(1, None), (2, (4, 0, 0)), (9, (4, 0, 0)), (6, None)])
def test_the_same_as_naively_with_each_frame_computed_once(border, length, tile, seen):
    model, video = Slide(), clip(length, 8, 12)
    out = restore(model, PARAMS, video, tile=tile, border=border)
    np.testing.assert_allclose(out, naively(video, model, border), rtol=1e-6)
    batch = tile[0] if tile else 1
    assert {count for count, _ in seen} == {batch}
    assert sum(new for _, new in seen) == length
    assert len(seen) <= -(-length // batch) + 1


def test_no_more_frames_are_held_than_needed():
    longest = 0
    frames = (np.full((4, 4, 3), i, np.float32) for i in range(40))
    for held, indices in sliding.windows(frames, 5, "reflection_circle", 3):
        assert {i for window in indices for i in window} <= held.keys()
        longest = max(longest, len(held))
    assert longest <= 2 * 5 + 3


def test_tiles_of_any_size_and_the_stream(seen):
    model, video, diagnostics, progress = Slide(), clip(7, 13, 18), {}, []
    settings = RestoreSettings(tile=(2, 9, 10), overlap=(2, 3, 4))
    options = {"diagnostics": diagnostics, "progress": progress.append}
    out = np.stack(list(restore_stream(model, PARAMS, iter(video), settings, **options)))
    np.testing.assert_allclose(out, naively(video, model, "replicate"), rtol=1e-5)
    assert progress == sorted(progress) and progress[-1] == pytest.approx(7)
    assert sum(new for _, new in seen) == 7 * 2 * 3  # two by three tiles
    assert len(diagnostics["size"]) == 4 * 6


def test_windows_of_one_frame_end_with_the_clip():
    found = [indices for _, indices in sliding.windows(iter(range(4)), 1, "replicate", 2)]
    assert found == [[[0], [1]], [[2], [3]]]


def test_pieces_do_not_keep_each_others_features(monkeypatch):
    """More windows than are run in one go, of several tiles: only one tile's are ever kept."""
    kept, run = [], sliding.Slider.run

    def watched(self, *arguments):
        out = run(self, *arguments)
        kept.append(len(self._kept))
        return out

    monkeypatch.setattr(sliding.Slider, "run", watched)
    monkeypatch.setattr(segments, "WINDOWS_IN_A_GO", 3)
    model, video = Slide(), clip(8, 6, 9)
    out = restore(model, PARAMS, video, tile=(1, 5, 5), overlap=(0, 2, 2), ensemble=4)
    np.testing.assert_allclose(out, naively(video, model, "replicate"), rtol=1e-5)
    assert len(kept) == 2 * 3 * 4 * 8 and max(kept) <= model.window


def test_the_model_says_the_border_unless_asked_otherwise():
    video = clip(6, 4, 4)
    circle = Slide(border="circle")
    np.testing.assert_array_equal(
        restore(circle, PARAMS, video), restore(Slide(), PARAMS, video, border="circle")
    )
    assert (restore(circle, PARAMS, video) != restore(Slide(), PARAMS, video)).any()


@pytest.mark.parametrize("turn", TURNS)
def test_turns_are_undone(turn):
    video = clip(2, 3, 4)
    np.testing.assert_array_equal(turned_back(turned(video, turn), turn), video)


def test_turns_are_the_eight_of_the_square():
    square = np.arange(4.0).reshape(1, 2, 2, 1)
    assert len({turned(square, turn).tobytes() for turn in TURNS}) == 8
    assert not any(transpose for transpose, _, _ in TURNS[:4])


class Shift(nn.Module):
    """Adds the left neighbour of each pixel, as a model that cares for orientation would."""

    window = None
    scale = 1
    time_multiple = 1
    size_multiple = 1
    pad_multiple = 1
    takes_noise_level = False

    @nn.compact
    def __call__(self, video):
        gain = self.param("gain", nn.initializers.ones, ())
        left = jnp.pad(video, ((0, 0), (0, 0), (0, 0), (1, 0), (0, 0)))[..., :-1, :]
        return gain * (video + left)


@pytest.mark.parametrize("ensemble", [4, 8])
def test_self_ensemble_is_the_mean_over_orientations(ensemble):
    video = clip(2, 5, 7)
    padded = np.pad(video, ((0, 0), (1, 1), (1, 1), (0, 0)))
    left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
    up, down = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
    expected = video + (left + right) / 2
    if ensemble == 8:
        expected = video + (left + right + up + down) / 4
    out = restore(Shift(), PARAMS, video, ensemble=ensemble)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert out.dtype == np.float32


def test_self_ensemble_of_windows_turns_what_it_pads(seen):
    model, video = Slide(), clip(6, 6, 9)
    out = restore(model, PARAMS, video, tile=(1, 5, 0), overlap=(0, 2, 2), ensemble=8)
    np.testing.assert_allclose(out, naively(video, model, "replicate"), rtol=1e-5)
    assert sum(new for _, new in seen) == 2 * 8 * 6


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Slide(), {"border": "mirror"}, "border is 'mirror'; choose from replicate"),
        (Slide(centre=1), {}, "restores number 1; only windows with as many"),
        (Shift(), {"border": "circle"}, "takes whole clips, not windows"),
        (Shift(), {"ensemble": 2}, "ensemble is 2; give 1"),
        (Slide(), {"sigma": 3}, "takes no noise level"),
        (Slide(), {"tile": (1, 20, 20)}, "tile of 20 does not exceed"),
    ],
)
def test_mistakes_are_named(model, options, message):
    with pytest.raises(UserError, match=message):
        restore(model, PARAMS, clip(3, 8, 8), **options)
    with pytest.raises(UserError, match="no frames"):
        list(restore_stream(Slide(), PARAMS, iter(()), RestoreSettings()))


def test_the_plan_is_what_the_compiler_says(monkeypatch):
    model, size = Slide(window=3, centre=1), (9, 13, 18)
    auto = RestoreSettings("auto").checked(model)
    budget = functools.partial(planning.Budget, shared=False)
    plan = planning.plan_tiles(model, PARAMS, size, auto, budget=budget(2**30, 2**30))
    assert plan.tile == (8, 0, 0) and plan.call == (8, 16, 20)
    network = programs.memory_needed(model, PARAMS, plan.call)
    assert plan.device_bytes == network + planning.frame_bytes(model, (8, 0, 0), (0, 0, 0), size)[0]
    alone = planning.Budget(2**30, 2**30, shared=True)
    plan = planning.plan_tiles(model, PARAMS, size, auto, budget=alone)
    assert plan.tile == (1, 0, 0) and plan.call == (1, 16, 20) and plan.calls == 9
    with pytest.raises(UserError, match="no tile fits the memory"):
        planning.plan_tiles(model, PARAMS, size, auto, budget=budget(1, 1))


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("tile", [None, (2, 16, 16)])
def test_one_frame_alone_is_the_one_among_all(index, tile, monkeypatch):
    model = Slide()
    video = np.random.default_rng(0).random((7, 20, 24, 3)).astype(np.float32)
    settings = RestoreSettings(tile, (2, 4, 4), border="reflection")
    every = list(restore_stream(model, PARAMS, iter(video), settings))
    calls = []
    fuse = programs.fuse
    monkeypatch.setattr(programs, "fuse", lambda *args: calls.append(1) or fuse(*args))
    alone = restore_frame(model, PARAMS, list(video), index, settings)
    np.testing.assert_array_equal(alone, every[index])
    assert len(calls) == (1 if tile is None else 4)  # one window for each tile
