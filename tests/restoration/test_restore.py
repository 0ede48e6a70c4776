"""restore(): the published numbers, any size and length, tiles against the whole, bad input."""

import jax
import numpy as np
import pytest
from helpers import goldens
from helpers.toy import PARAMS, Toy

from rvrt_jax.errors import UserError
from rvrt_jax.models import memory
from rvrt_jax.restoration import plan as planning
from rvrt_jax.restoration import programs, tiling
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.restore import restore, restore_stream
from rvrt_jax.restoration.runner import mirror
from rvrt_jax.restoration.settings import RestoreSettings

SIZES = [(1, 1, 1), (1, 3, 40), (2, 7, 5), (3, 13, 17), (5, 8, 8), (7, 37, 3)]


def clip(shape, seed=0):
    return np.random.default_rng(seed).random((*shape, 3), np.float32)


def repeat(video, scale):
    return video.repeat(scale, axis=1).repeat(scale, axis=2)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("tile", [None, (4, 12, 16), (0, 12, 16), (3, 0, 11)])
@pytest.mark.parametrize(("scale", "multiple"), [(4, 1), (1, 4)])
def test_any_size_comes_back_in_its_place(shape, tile, scale, multiple):
    model, video = Toy(scale=scale, size_multiple=multiple), clip(shape)
    out = restore(model, PARAMS, video, tile=tile, overlap=(2, 4, 5))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, repeat(video, scale), atol=1e-6)  # averages of equal numbers


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_frames_are_scaled_to_one(dtype):
    video = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (3, 5, 6, 3)).astype(dtype)
    out = restore(Toy(), PARAMS, video)
    np.testing.assert_allclose(out, repeat(video / np.iinfo(dtype).max, 4), atol=1e-6)


def test_whole_video_is_mirrored_at_its_ends_only():
    """The blurred last frame and column see their own mirror image, the first ones see zeros."""
    video = clip((3, 5, 6))
    out = restore(Toy(scale=1, blur=True), PARAMS, video)
    padded = np.zeros((6, 10, 10, 3))
    padded[1:5, 1:9, 1:9] = video[[0, 1, 2, 2]][:, [0, 1, 2, 3, 4, 4, 3, 2]][
        :, :, [0, 1, 2, 3, 4, 5, 5, 4]
    ]
    expected = sum(
        padded[k : k + 3, j : j + 5, i : i + 6]
        for k in range(3)
        for j in range(3)
        for i in range(3)
    )
    np.testing.assert_allclose(out, expected / 27, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_mirror_longer_than_the_axis_goes_back_and_forth(size):
    video = clip((size, 1, size))
    order = (np.r_[0:size, size - 1 : -1 : -1].tolist() * 8)[:8]
    expected = video[order[:4]][:, [0] * 8][:, :, order]
    np.testing.assert_array_equal(mirror(video, (4, 8, 8)), expected)


def test_tiles_that_fit_are_not_padded_and_others_only_as_far_as_needed():
    model = Toy(scale=1, size_multiple=4)
    assert tiling.call_shape(model, (0, 0, 0), (5, 20, 13)) == (6, 24, 16)
    assert tiling.call_shape(model, (4, 12, 16), (5, 20, 33)) == (4, 12, 16)
    assert tiling.call_shape(model, (8, 32, 32), (5, 20, 13)) == (6, 20, 16)
    assert tiling.call_shape(model, (3, 10, 10), (5, 20, 13)) == (4, 12, 12)


def test_tiled_equals_whole_where_the_halo_covers_the_receptive_field():
    """A 3x3x3 blur changes one pixel at a tile's border; the trim of 2 pixels takes it away."""
    model, video = Toy(scale=1, pad_multiple=1, time_multiple=1, blur=True), clip((3, 41, 53))
    whole = restore(model, PARAMS, video)
    tiled = restore(model, PARAMS, video, tile=(0, 17, 19), overlap=(0, 4, 5))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_stream_equals_restore_and_reports_progress():
    video, seen = clip((11, 13, 14)), []
    options = {"tile": (4, 9, 10), "overlap": (2, 3, 4)}
    frames = (frame for frame in video)
    settings = RestoreSettings(**options)
    streamed = list(restore_stream(Toy(), PARAMS, frames, settings, progress=seen.append))
    np.testing.assert_array_equal(np.stack(streamed), restore(Toy(), PARAMS, video, **options))
    assert seen == sorted(seen) and seen[-1] == pytest.approx(11)


def test_every_tile_uses_one_compiled_program():
    calls = []

    class Counted(Toy):
        def __call__(self, video):
            calls.append(video.shape)
            return super().__call__(video)

    for _ in range(2):
        restore(Counted(), PARAMS, clip((9, 25, 31)), tile=(4, 12, 16), overlap=(2, 4, 4))
    assert calls == [(1, 4, 12, 16, 3)]


def test_the_plan_is_checked_against_the_compiler_and_its_program_reused(monkeypatch):
    compiled = []

    class Counted(Toy):
        def __call__(self, video):
            compiled.append(video.shape[1:4])
            return super().__call__(video)

    model, video = Counted(), clip((9, 40, 40))
    monkeypatch.setattr(memory, "PER_FRAME", 0)  # an estimate far too low
    monkeypatch.setattr(memory, "FIXED", 0)
    monkeypatch.setattr(memory, "PER_CHANNEL", 0)
    whole = plan_tiles(model, PARAMS, video.shape[:3], RestoreSettings().checked(model))
    budget = planning.Budget(whole.device_bytes * 2 // 3, 2**30, shared=True)
    monkeypatch.setattr(planning, "free_memory", lambda: budget)
    auto = RestoreSettings("auto").checked(model)
    plan = plan_tiles(model, PARAMS, video.shape[:3], auto)
    network = programs.memory_needed(model, PARAMS, plan.call)
    on_device, _ = planning.frame_bytes(model, plan.tile, plan.overlap, video.shape[:3])
    assert plan.device_bytes == network + on_device
    assert plan.fits(budget) and not whole.fits(budget)
    assert compiled[-1] == plan.call
    before = len(compiled)
    np.testing.assert_allclose(
        restore(model, PARAMS, video, tile="auto"), repeat(video, 4), atol=1e-6
    )
    assert len(compiled) == before


def test_sigma_is_the_fourth_channel():
    model, video = Toy(scale=1, takes_noise_level=True), clip((2, 5, 5))
    np.testing.assert_allclose(restore(model, PARAMS, video, sigma=51), video + 0.2, atol=1e-6)
    np.testing.assert_array_equal(restore(model, PARAMS, video, sigma=0), video)
    with pytest.raises(UserError, match="needs the noise level"):
        restore(model, PARAMS, video)
    with pytest.raises(UserError, match="sigma is -1"):
        restore(model, PARAMS, video, sigma=-1)
    with pytest.raises(UserError, match="takes no noise level"):
        restore(Toy(), PARAMS, video, sigma=0)


def bad_clips():
    nan, wide, large = clip((4, 6, 6)), clip((4, 6, 6)), 255 * clip((4, 6, 6))
    nan[2, 1, 1, 0] = np.nan
    wide[3, 0, 0] = np.inf
    return [
        (nan, "frame 2 has 1 value"),
        (wide, "frame 3 has 3 value"),
        (large, "divide by 255"),
        (nan[0], "have shape .6, 6, 3."),
        (clip((4, 6, 6))[..., :1], "give RGB"),
        (clip((4, 0, 6)), "shape .0, 6, 3."),
        (clip((0, 6, 6)), "no frames"),
    ]


@pytest.mark.parametrize(("video", "message"), bad_clips())
@pytest.mark.parametrize("tile", [None, (2, 4, 4)])
def test_bad_frames_are_named(video, message, tile):
    with pytest.raises(UserError, match=message):
        restore(Toy(), PARAMS, video, tile=tile, overlap=(1, 2, 2))


def test_frames_must_be_alike():
    frames = [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]
    with pytest.raises(UserError, match="frame 1 is .4, 5, 3."):
        list(restore_stream(Toy(), PARAMS, frames, RestoreSettings()))


def test_unknown_tile_word():
    with pytest.raises(UserError, match='"none"'):
        restore(Toy(), PARAMS, clip((1, 2, 2)), tile="none")


def test_running_out_of_memory_says_what_to_do(monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(programs, "apply", exhausted)
    with pytest.raises(UserError, match="too little memory for 2 frames of 16x8"):
        restore(Toy(), PARAMS, clip((2, 8, 12)))


@pytest.mark.parametrize(
    "name", ["tiled", "padded_odd", "deblur_tiled", "deblur_padded_odd", "sr_x4_groups"]
)
def test_published_inference(name):
    model, params, golden = goldens.rvrt(name)
    video = goldens.smooth_video(tuple(golden["shape"]), int(golden["seed"]))
    video = goldens.channels_last(video)[0]
    out = restore(model, params, video, tile=golden["tile"], overlap=golden["overlap"])
    expected = goldens.channels_last(golden["output[..., ::6, ::6]"])[0]
    # The golden run was in float64; float32 rounding through the network stays below 1e-5.
    np.testing.assert_allclose(out[:, ::6, ::6], expected, atol=1e-5)
