"""The start as the identity: what goes through, and who is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from rvrt_jax import models
from rvrt_jax.errors import UserError
from rvrt_jax.models import beside
from rvrt_jax.models.contract import in_channels
from rvrt_jax.models.ffdnet import FFDNet
from rvrt_jax.training import identity, state

SMALL = {
    "upscale": 1,
    "embed_dims": (60, 60, 60),
    "window_size": (2, 4, 4),
    "num_blocks": (1, 1, 1),
    "depths": (1, 1, 1),
    "num_heads": (2, 2, 2),
    "deformable_groups": 2,
    "attention_heads": 2,
    "num_feat": 50,
    "offset_feat": 8,
}


def built(**fields):
    model, drawn = drawn_once(**fields)
    return model, jax.tree.map(np.copy, drawn)


@functools.cache
def drawn_once(**fields):
    model = models.build("rvrt", **(SMALL | fields))
    return model, state.draw(model, 0)


@pytest.mark.parametrize(
    "fields, mean, least, spread",
    [
        ({}, 0.9, 0.8, 0.1),
        ({"nonblind_denoising": True}, 0.9, 0.8, 0.1),
        # A block of 12 values has now and then next to no contrast of its own.
        ({"nonblind_denoising": True, "feature_stride": 2}, 0.85, 0.6, 0.15),
        ({"feature_stride": 2, "warped_neighbours": True}, 0.9, 0.8, 0.15),
    ],
)
def test_nothing_is_changed_and_the_pixels_reach_the_last_layer(fields, mean, least, spread):
    model, drawn = built(**fields)
    params = identity.pass_pixels(drawn)
    video = np.random.default_rng(0).random((1, 2, 32, 36, in_channels(model)), np.float32)
    video[..., 3:] = 30 / 255
    run = jax.jit(model.apply)
    np.testing.assert_array_equal(run({"params": params}, video), video[..., :3])
    # All pixels of a block are there, each in its place, up to the block's mean, which the norms
    # take away, and nearly of the same contrast.
    size = model.feature_stride
    seen = blocks(read_out(model, params, video, [0, 1, 2]), size)
    truth = blocks(video[..., :3], size)
    correlation = np.mean(seen * truth, axis=1) / seen.std(axis=1) / truth.std(axis=1)
    assert correlation.mean() > mean and correlation.min() > least  # of a random start: 0.0
    contrast = seen.std(axis=1) / truth.std(axis=1)
    assert contrast.std() / contrast.mean() < spread  # of a random start: 0.17 to 0.19


def test_what_a_filter_gives_back_is_there_from_the_start(monkeypatch):
    given = np.random.default_rng(1).standard_normal((1, 2, 32, 36, 6)).astype(np.float32)

    def along_motion(frames, flows, stride):
        return jnp.asarray(given), jnp.zeros((*frames.shape[:4], 4))

    model, drawn = built(feature_stride=2, along_motion=True)
    monkeypatch.setattr(beside, "along_motion", along_motion)
    video = np.random.default_rng(0).random((1, 2, 32, 36, 3), np.float32)
    made = jax.jit(model.apply)({"params": identity.pass_pixels(drawn)}, video)
    np.testing.assert_allclose(made, video + given[..., :3], atol=1e-6)


def read_out(model, params, video, channels):
    """What the last layer adds if it undoes the mixtures of these channels."""
    tail = params["upsampler"]
    mixing = np.asarray(tail["conv_hr"]["kernel"])[1, 1]
    sources = identity.Layout(0, model.nonblind_denoising, 6 * model.warped_neighbours).carried
    half = mixing.shape[1] // 2
    kernel = np.zeros_like(tail["conv_out"]["kernel"])
    kernel[1, 1, :half] = np.linalg.pinv(mixing[sources, :half])[:, channels]
    out = {"kernel": kernel, "bias": np.zeros(3, np.float32)}
    params = {**params, "upsampler": {**tail, "conv_out": out}}
    return jax.jit(model.apply)({"params": params}, video) - video[..., :3]


def test_the_differences_of_neighbours_reach_the_last_layer_in_their_places():
    """Of two frames the second has none behind it, and the first none before."""
    model, drawn = built(feature_stride=2, warped_neighbours=True)
    params = identity.pass_pixels(drawn)
    still = {**params, "spynet": jax.tree.map(np.zeros_like, params["spynet"])}
    video = np.random.default_rng(0).random((1, 2, 32, 36, 3), np.float32)
    change = video[0, 1] - video[0, 0]
    before = np.asarray(read_out(model, still, video, [3, 4, 5]))[0]
    behind = np.asarray(read_out(model, still, video, [6, 7, 8]))[0]
    for seen, expected in ((before[1], -change), (behind[0], change)):
        assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.8
    for seen in (before[0], behind[1]):
        assert abs(np.corrcoef(seen.ravel(), change.ravel())[0, 1]) < 0.3


@pytest.mark.parametrize("stride", [2, 4])
def test_the_noise_level_reaches_the_last_convolutions_as_large_as_the_pixels(stride):
    model, drawn = built(nonblind_denoising=True, feature_stride=stride)
    params = identity.pass_pixels(drawn)
    tail = params["upsampler"]
    for name, source in (("conv_hr", 3), ("conv_out", 0)):  # pixels lie before the level
        tail[name] = jax.tree.map(np.zeros_like, tail[name])
        tail[name]["kernel"][1, 1, source] = 1
    video = np.random.default_rng(0).random((1, 2, 32, 36, 4), np.float32)
    run = jax.jit(lambda video: model.apply({"params": params}, video) - video[..., :3])
    noisy, clean = video.copy(), video.copy()  # JAX may read them later than it is called
    noisy[..., 3], clean[..., 3] = 50 / 255, 0
    apart = np.asarray(run(noisy) - run(clean))
    assert apart.mean() > 0.5 and apart.std() < 0.2 * apart.mean()


def blocks(frames, size):
    """The blocks of size x size pixels of frames, each as one row without its mean."""
    folded = rearrange(np.asarray(frames), "1 t (h i) (w j) c -> (t h w) (i j c)", i=size, j=size)
    return folded - folded.mean(axis=1, keepdims=True)


def test_what_denoises_first_stays_as_it_was():
    model, drawn = built(nonblind_denoising=True, denoise_first=True)
    params = identity.pass_pixels(drawn)
    video = np.random.default_rng(0).random((1, 2, 32, 36, 4), np.float32)
    alone = FFDNet().apply({"params": drawn["image_denoiser"]}, video)
    run = jax.jit(model.apply)
    np.testing.assert_allclose(run({"params": params}, video), np.clip(alone, 0, 1), atol=1e-6)


def test_all_else_stays_random():
    _, drawn = built()
    params = identity.pass_pixels(drawn)
    for name in ("backward_1", "forward_2", "spynet"):
        for before, after in zip(
            jax.tree.leaves(drawn[name]), jax.tree.leaves(params[name]), strict=True
        ):
            np.testing.assert_array_equal(before, after)
    kernel = params["extract"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel[..., 48:], drawn["extract"]["conv"]["kernel"][..., 48:])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"upscale": 4}, "for an RVRT with upscale=1"),
        ({"num_feat": 32}, "num_feat of 32 cannot hold the 48 values of a 4x4 block"),
        ({"warped_neighbours": True}, "the 144 values of a 4x4 block.* Give 150 and 144 or more"),
        (
            {"num_feat": 48, "nonblind_denoising": True},
            "Give 54 and 49 or more",
        ),
    ],
)
def test_networks_that_cannot(fields, message):
    model = models.build("rvrt", **(SMALL | fields))
    shapes = jax.eval_shape(lambda: state.draw(model, 0))
    with pytest.raises(UserError, match=message):
        identity.pass_pixels(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
