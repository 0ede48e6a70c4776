"""The start as the identity: what goes through, and who is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax import models
from rvrt_jax.errors import UserError
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
    model = models.build("rvrt", **(SMALL | fields))
    return model, jax.tree.map(np.asarray, jax.jit(lambda: state.draw(model, 0))())


@pytest.mark.parametrize("noise_level", [False, True])
def test_nothing_is_changed_and_the_pixels_reach_the_last_layer(noise_level):
    model, drawn = built(nonblind_denoising=noise_level)
    params = identity.pass_pixels(drawn)
    video = np.random.default_rng(0).random((1, 2, 32, 36, 3 + noise_level), np.float32)
    np.testing.assert_array_equal(model.apply({"params": params}, video), video[..., :3])
    # The last layer reads the mixtures out again: all pixels of a block are there, each in its
    # place, up to the block's mean, which the norms take away, and nearly of the same contrast.
    kernel = np.zeros((3, 3, 50, 3), np.float32)
    kernel[1, 1] = np.linalg.pinv(params["upsampler"]["conv_hr"]["kernel"][1, 1, :3])
    params["upsampler"]["conv_out"] = {"kernel": kernel, "bias": jnp.zeros(3)}
    seen = blocks(model.apply({"params": params}, video) - video[..., :3])
    truth = blocks(video[..., :3])
    correlation = np.mean(seen * truth, axis=1) / seen.std(axis=1) / truth.std(axis=1)
    assert correlation.mean() > 0.9 and correlation.min() > 0.8  # of a random start: 0.0
    contrast = seen.std(axis=1) / truth.std(axis=1)
    assert contrast.std() / contrast.mean() < 0.1  # of a random start: 0.17 to 0.19


def blocks(frames):
    """The 4x4 blocks of frames, each as one row without its mean."""
    _, t, h, w, _ = frames.shape
    folded = np.asarray(frames).reshape(t, h // 4, 4, w // 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    rows = folded.reshape(-1, 48)
    return rows - rows.mean(axis=1, keepdims=True)


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
    ],
)
def test_networks_that_cannot(fields, message):
    _, drawn = built(**fields)
    with pytest.raises(UserError, match=message):
        identity.pass_pixels(drawn)
