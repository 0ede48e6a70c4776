"""BasicVSR against a loop in NumPy over made-up weights, and, where they are, the trained ones."""

import functools
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import goldens

from configs import basicvsr as recipe
from rvrt_jax.data import clips, degrade
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import files as evaluation
from rvrt_jax.evaluation import metrics
from rvrt_jax.media.frames import to_float, to_uint
from rvrt_jax.models import build
from rvrt_jax.models.spynet import SpyNet
from rvrt_jax.restoration.restore import restore
from rvrt_jax.weights import catalogue, families, pth
from rvrt_jax.weights import load as loading

FIELDS = {"num_feat": 4, "num_block": 2}


@pytest.fixture(scope="module")
def state():
    """Made-up weights by checkpoint key."""
    model = build("basicvsr", **FIELDS)
    return goldens.state_dict(families.table("basicvsr", {}), goldens.parameter_shapes(model), 5)


@pytest.fixture(scope="module")
def small(state):
    """(function of a video, parameters) of a narrow network with these weights."""
    model, params = loading.from_state_dict("basicvsr", state, **FIELDS)
    return jax.jit(lambda params, video: model.apply({"params": params}, video)), params


def video(*shape, seed=1):
    """Drifting waves, [b, t, h, w, 3]."""
    b, t, h, w = shape
    return goldens.channels_last(goldens.smooth_video((b, t, 3, h, w), seed))


def conv(x, state, key):
    """Correlates [h, w, c] with a checkpoint's kernel, tap by tap."""
    kernel, bias = state[f"{key}.weight"], state[f"{key}.bias"]
    size = kernel.shape[2]
    h, w, _ = x.shape
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)])
    out = np.tile(bias.astype(np.float64), (h, w, 1))
    for i in range(size):
        for j in range(size):
            out += padded[i : i + h, j : j + w] @ kernel[:, :, i, j].T
    return out


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def warp(x, flow):
    """Bilinear interpolation, pixel by pixel; zero outside."""
    h, w, _ = x.shape
    out = np.zeros_like(x)
    for y in range(h):
        for column in range(w):
            at_x, at_y = column + flow[y, column, 0], y + flow[y, column, 1]
            for row in (int(np.floor(at_y)), int(np.floor(at_y)) + 1):
                for col in (int(np.floor(at_x)), int(np.floor(at_x)) + 1):
                    if 0 <= row < h and 0 <= col < w:
                        weight = (1 - abs(at_y - row)) * (1 - abs(at_x - col))
                        out[y, column] += weight * x[row, col]
    return out


def trunk(state, name, frames, flow):
    """States in the order of `frames`; flow(i) leads from frame i of these to the one before."""
    hidden, states = np.zeros((*frames[0].shape[:2], FIELDS["num_feat"])), []
    for i, frame in enumerate(frames):
        if i:
            hidden = warp(hidden, flow(i))
        hidden = leaky(conv(np.concatenate([frame, hidden], -1), state, f"{name}.main.0"))
        for k in range(FIELDS["num_block"]):
            inner = np.maximum(conv(hidden, state, f"{name}.main.2.{k}.conv1"), 0)
            hidden = hidden + conv(inner, state, f"{name}.main.2.{k}.conv2")
        states.append(hidden)
    return states


def shuffle(x):
    h, w, c = x.shape
    out = np.zeros((2 * h, 2 * w, c // 4))
    for i in range(2):
        for j in range(2):
            out[i::2, j::2] = x[..., 2 * i + j :: 4]
    return out


def enlarged(frame):
    """OpenCV's bilinear x4, which has half-pixel centres and repeats the border, too."""
    h, w, _ = frame.shape
    return cv2.resize(frame, (4 * w, 4 * h), interpolation=cv2.INTER_LINEAR)


def brute_force(state, params, clip):
    """The whole network on [t, h, w, 3]; flow alone is the project's, which has its own tests."""
    spynet = jax.jit(lambda a, b: SpyNet().apply({"params": params["spynet"]}, a[None], b[None])[0])

    def flow(i, j):
        found = np.asarray(spynet(clip[i], clip[j]), np.float64)
        assert 0.3 < np.abs(found).mean() < 30  # or the test would not see a flow gone astray
        return found

    last = len(clip) - 1
    forward = trunk(state, "forward_trunk", clip, lambda i: flow(i, i - 1))
    backward = trunk(state, "backward_trunk", clip[::-1], lambda i: flow(last - i, last - i + 1))[
        ::-1
    ]
    frames = []
    for frame, back, forth in zip(clip, backward, forward, strict=True):
        x = leaky(conv(np.concatenate([back, forth], -1), state, "fusion"))
        x = leaky(shuffle(conv(x, state, "upconv1")))
        x = leaky(shuffle(conv(x, state, "upconv2")))
        x = conv(leaky(conv(x, state, "conv_hr")), state, "conv_last")
        frames.append(x + enlarged(frame))
    return np.stack(frames)


# Two examples, so that the tests also see whether these are independent.
ODD = (2, 3, 19, 23)


@pytest.mark.parametrize("shape", [ODD, (1, 1, 9, 7)])
def test_equals_a_loop_over_frames(state, small, shape):
    apply, params = small
    clip = video(*shape)
    out = apply(params, clip)
    assert out.dtype == jnp.float32
    for one, frames in zip(out, clip, strict=True):
        expected = brute_force(state, params, frames)
        assert np.abs(expected - np.stack([enlarged(frame) for frame in frames])).mean() > 0.05
        # The made-up trunks reach values of about 10, in float32 there and float64 here.
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


def test_zero_weights_enlarge_bilinearly(small):
    apply, params = small
    clip = video(*ODD)
    out = apply(jax.tree.map(np.zeros_like, params), clip)
    expected = [[enlarged(frame) for frame in frames] for frames in clip]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def shapes(model, t):
    video = jnp.zeros((1, t, 8, 8, 3))
    return jax.eval_shape(model.init, jax.random.key(0), video)["params"]


def test_parameters_do_not_depend_on_the_length():
    assert shapes(build("basicvsr", **FIELDS), 1) == shapes(build("basicvsr", **FIELDS), 3)


def test_there_are_as_many_parameters_as_published():
    # 6,291,317 numbers in the file, six of them SpyNet's two constants.
    leaves = jax.tree.leaves(shapes(build("basicvsr"), 1))
    assert sum(leaf.size for leaf in leaves) == 6_291_311


def test_gradients_with_remat_are_the_same(small):
    """Of all but SpyNet, whose gradients take long to compile; RVRT's tests have them."""
    _, params = small
    spynet = {"spynet": params["spynet"]}
    others = {name: part for name, part in params.items() if name != "spynet"}

    def gradients(remat):
        model = build("basicvsr", **FIELDS, remat=remat)

        def loss(others, spynet, clip):
            return (model.apply({"params": others | spynet}, clip) ** 2).mean()

        return jax.jit(jax.grad(loss))(others, spynet, video(1, 2, 9, 11))

    plain = gradients(False)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(plain))
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, plain, gradients(True))


def test_bfloat16_stays_close(small):
    apply, params = small
    clip = video(*ODD)
    model = build("basicvsr", **FIELDS, dtype=jnp.bfloat16)
    out = jax.jit(model.apply)({"params": params}, clip)
    assert out.dtype == jnp.float32
    # 8 bits of mantissa: 0.4 % of values up to about 10, over some ten layers.
    assert 0 < np.abs(out - apply(params, clip)).mean() < 0.05


def test_four_channels_are_refused(small):
    with pytest.raises(UserError, match="4 channels"):
        small[0](small[1], np.zeros((1, 2, 9, 7, 4), np.float32))


def test_a_checkpoint_file_restores_any_size_by_the_recipe(tmp_path, state, small):
    pth.write(tmp_path / "x.pth", state)
    config = recipe.get_config()
    config.model.update(FIELDS)
    name, fields = evaluation.model_fields(config, dtype=None)
    model, params = loading.load(tmp_path / "x.pth", name, **fields)
    clip = video(*ODD)
    out = restore(model, params, clip[0])
    np.testing.assert_allclose(out, small[0](small[1], clip)[0], atol=1e-4)


def test_a_published_file_is_known_by_its_shapes(tmp_path):
    full = goldens.parameter_shapes(build("basicvsr"))
    arrays = goldens.state_dict(families.table("basicvsr", {}), full, 0)
    pth.write(tmp_path / "x.pth", arrays)
    assert loading.load(tmp_path / "x.pth")[0] == build("basicvsr")


CLIP = "city_night"


def test_lr_of_the_golden_clip():
    truth = clips.load_folders(clips.BUNDLED)[CLIP]
    np.testing.assert_array_equal(
        degrade.bicubic_down(truth, 4), goldens.load(f"basicvsr/{CLIP}")["lr"]
    )


def test_trained_weights_give_the_golden_output_and_scores():
    try:
        catalogue.find("basicvsr_reds4")
    except UserError as error:
        pytest.skip(str(error))
    golden = goldens.load(f"basicvsr/{CLIP}")
    expected = json.loads((goldens.GOLDEN / "basicvsr" / "scores.json").read_text())[CLIP]["REDS4"]
    model, params = loading.load("basicvsr_reds4")
    apply = jax.jit(lambda params, video: model.apply(params, video, mutable="intermediates"))
    out, recorded = apply({"params": params}, to_float(golden["lr"])[None])
    out = np.asarray(out[0])
    flows = recorded["intermediates"]["flows_backward"][0][:, 0]
    np.testing.assert_allclose(
        flows[::3, ::2, ::2], golden["flows_backward[::3, ::2, ::2]"], atol=1e-4
    )
    np.testing.assert_allclose(out[::3, ::3, ::3], golden["output[::3, ::3, ::3]"], atol=1e-4)
    truth = clips.load_folders(clips.BUNDLED)[CLIP]
    frames = zip(to_uint(out, 8), truth, strict=True)
    scores = [metrics.frame_scores(frame, true) for frame, true in frames]
    means = [
        np.mean([score[key] for score in scores]) for key in ("psnr_rgb", "ssim_rgb", "psnr_y")
    ]
    for mean, stored, tolerance in zip(means, expected, (0.005, 0.0005, 0.005), strict=True):
        assert mean == pytest.approx(stored, abs=tolerance)
