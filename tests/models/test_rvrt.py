"""RVRT: the golden numbers, and what must hold for clip sizes and options they do not cover."""

import dataclasses
import functools
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from helpers import goldens
from scipy import ndimage

from rvrt_jax.errors import UserError
from rvrt_jax.models import VARIANTS, build, guided_attention, rvrt
from rvrt_jax.models.layers import from_clips
from rvrt_jax.models.spynet import SpyNet
from rvrt_jax.models.swin import Rstb, WindowAttention
from rvrt_jax.ops import platforms
from rvrt_jax.training.losses import charbonnier
from rvrt_jax.weights import families, mapping

# Against float64: rounding through the whole network stays below 4e-6, while a LayerNorm eps of
# 1e-6 instead of 1e-5 moves the output by 1.3e-5.
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)

TINY = {
    "window_size": (2, 4, 4),
    "num_blocks": (1, 1, 1),
    "depths": (1, 2, 1),
    "embed_dims": (8, 8, 8),
    "num_heads": (2, 2, 2),
    "deformable_groups": 4,
    "attention_heads": 2,
    "num_feat": 8,
    "offset_feat": 8,
}


def tiny(**fields):
    """Returns (model, params) of the smallest network there is, with made-up parameters."""
    model = build("rvrt", **(TINY | fields))
    return model, made_up(model)


def made_up(model):
    shapes = _shapes(model.clone(dtype=jnp.float32, remat=False, attention="plain"))
    table = families.table("rvrt", dataclasses.asdict(model))
    return mapping.nest(mapping.to_params(table, goldens.state_dict(table, shapes, 0), shapes))


_shapes = functools.cache(goldens.parameter_shapes)


def video_of(t, h, w, *, batch=1, channels=3, seed=0):
    return goldens.channels_last(goldens.smooth_video((batch, t, channels, h, w), seed))


def run(model, params, video):
    """Returns (output, intermediates) of one compiled call."""
    output, state = _compiled(model)(params, video)
    return output, state["intermediates"]


@functools.cache
def _compiled(model):
    return jax.jit(
        lambda params, video: model.apply({"params": params}, video, mutable=["intermediates"])
    )


# The golden numbers


def golden_video(golden):
    if "input" in golden:
        return goldens.channels_last(golden["input"])
    video = goldens.smooth_video(tuple(golden["shape"]), int(golden["seed"]))
    return goldens.channels_last(video)


def check_golden(golden, output, intermediates):
    """Holds the output and everything inside the network against a golden file."""
    close(
        rearrange(output, "b t h w c -> b t c h w")[..., ::6, ::6], golden["output[..., ::6, ::6]"]
    )
    for direction in ("forward", "backward"):
        name = f"flows_{direction}"
        flows = rearrange(intermediates[name][0], "t b h w x -> b t x h w")
        close(flows[..., ::3, ::3], golden[f"{name}[..., ::3, ::3]"])
    for name, features in intermediates["features"][0].items():
        features = rearrange(from_clips(features), "b t h w c -> b t c h w")
        close(features[..., ::4, ::4], golden[f"{name}[..., ::4, ::4]"])
    for guidance in intermediates["guidance"]:
        ((name, flows),) = guidance.items()
        for slot in range(2) if name.endswith("_1") else ():
            ours = rearrange(flows[:, :, :, slot], "k b i h w x -> b k i x h w")[..., ::3, ::3]
            close(ours, golden[f"updated_flows/{name}_n{slot + 1}[..., ::3, ::3]"])


@pytest.mark.parametrize("name", ["sr_x4", "sr_x4_unaligned", "deblur", "denoise"])
def test_golden(name):
    model, params, golden = goldens.rvrt(name)
    check_golden(golden, *run(model, params, golden_video(golden)))


@pytest.fixture(params=["cuda", "tpu"])
def as_accelerators_do(request):
    """Computes here, in float32, what a GPU or a TPU would."""
    with platforms.known_to_be(request.param):
        yield


def test_golden_as_accelerators_do(as_accelerators_do):
    test_golden("sr_x4_unaligned")


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_golden_gradients_as_accelerators_do(as_accelerators_do, remat):
    test_golden_gradients(remat)


@pytest.mark.parametrize("remat", [pytest.param(False, marks=pytest.mark.slow), True])
def test_golden_gradients(remat):
    """The loss, and every parameter's gradient by its norm and by one random projection.

    Published recipes rematerialise.
    """
    model, params, golden = goldens.rvrt("sr_x4_grads", remat=remat)
    video = golden_video(golden)
    b, t, h, w, _ = video.shape
    target = video_of(t, 4 * h, 4 * w, batch=b, seed=int(golden["target_seed"]))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective(params):
        output, state = model.apply({"params": params}, video, mutable="intermediates")
        loss = charbonnier(output, target, eps=float(golden["charbonnier_eps"]))
        return loss, (output, state["intermediates"])

    (loss, results), gradient = objective(params)
    check_golden(golden, *results)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)
    table = families.table("rvrt", json.loads(str(golden["config"])))
    state = mapping.without_buffers(table, mapping.to_state(table, mapping.flatten(gradient)))
    expected = dict(zip(golden["grad_names"], golden["grad_norm_and_probe"], strict=True))
    assert state.keys() == expected.keys()
    for key, array in state.items():
        norm, probe = expected[key]
        noise = np.random.RandomState(zlib.crc32(f"probe/{key}".encode())).standard_normal(
            array.size
        )
        ours = np.linalg.norm(array), array.ravel() @ noise
        np.testing.assert_allclose(ours, (norm, probe), rtol=0, atol=1e-3 * norm, err_msg=key)


def test_spynet_golden():
    ops, model = goldens.load("rvrt/ops"), SpyNet()
    frames = [np.moveaxis(ops[f"spynet/{name}"], 1, -1) for name in ("ref", "supp")]
    tree = jax.eval_shape(model.init, jax.random.key(0), *frames)["params"]
    shapes = {path: leaf.shape for path, leaf in mapping.flatten(tree).items()}
    table = families.table("spynet", {})
    state = goldens.state_dict(table, shapes, 11, prefix="spynet.")
    params = mapping.nest(mapping.to_params(table, state, shapes))
    flow = jax.jit(model.apply)({"params": params}, *frames)
    close(flow, np.moveaxis(ops["spynet/flow"], 1, -1))


def test_rstb_golden():
    ops, model = goldens.load("rvrt/ops"), Rstb((2, 8, 8), depth=2, heads=4, mlp_ratio=2.0)
    x, expected = (np.moveaxis(ops[f"rstb/{name}_ncdhw"], 1, -1) for name in ("input", "output"))
    tree = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    shapes = {f"extract/rstb_0/{path}": leaf.shape for path, leaf in mapping.flatten(tree).items()}
    table = families.table("rvrt", {"upscale": 4, "window_size": (2, 8, 8)})
    state = {  # the golden run knew this block alone, so its keys have no prefix
        key: goldens.fill(key.removeprefix("feat_extract.main.5.0."), array.shape, 11)
        for key, array in goldens.state_dict(table, shapes, 11).items()
    }
    params = mapping.nest(mapping.to_params(table, state, shapes))["extract"]["rstb_0"]
    close(jax.jit(model.apply)({"params": params}, x), expected)


@pytest.mark.parametrize(
    ("name", "count"),
    [("rvrt_sr", 10_782_295), ("rvrt_deblur", 13_573_159), ("rvrt_denoise", 12_786_919)],
)
def test_published_sizes(name, count):
    assert name in VARIANTS
    assert sum(int(np.prod(shape)) for shape in _shapes(build(name)).values()) == count


# Clip sizes


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("clips", [1, 3])
def test_guidance_by_loops(n, clips):
    """f(i->j) = f(i->i-1) + warp(f(i-1->j), f(i->i-1)), with SciPy's sampling, down to j."""
    h, w = 5, 7
    rng = np.random.default_rng(0)
    neighbours = rng.normal(0, 2, (n * clips - 1, 1, h, w, 2)).astype(np.float32)
    out = guided_attention.clip_guidance(jnp.asarray(neighbours), n)
    assert out.shape == (clips - 1, 1, n, n, h, w, 2)
    grid = np.mgrid[:h, :w]

    def flow(a, b):
        step = neighbours[a - 1, 0]
        if b == a - 1:
            return step
        places = grid + np.moveaxis(step[..., ::-1], -1, 0)
        sample = functools.partial(ndimage.map_coordinates, order=1, mode="grid-constant")
        further = [sample(part, places) for part in np.moveaxis(flow(a - 1, b), -1, 0)]
        return step + np.stack(further, -1)

    for clip in range(clips - 1):
        for i in range(n):
            for slot in range(n):
                support = clip * n + (slot + i) % n
                expected = flow((clip + 1) * n + i, support)
                np.testing.assert_allclose(out[clip, 0, i, slot], expected, atol=1e-4)


def test_three_frames_a_clip_on_an_odd_size():
    """Plain and streamed attention agree; 9 x 8 pixels, which no window divides."""
    video = video_of(6, 9, 8)
    outputs = []
    for attention in ("plain", "streamed"):
        model, params = tiny(clip_size=3, window_size=(3, 4, 4), attention=attention)
        outputs.append(run(model, params, video)[0])
    assert outputs[0].shape == (1, 6, 36, 32, 3)
    assert float(np.std(outputs[0] - outputs[0].mean())) > 0.1
    close(*outputs)


def test_every_frame_depends_on_every_frame():
    """Recurrence reaches both ways from each frame, and a batch's videos do not mix (N = 1)."""
    model, params = tiny(clip_size=1, window_size=(1, 4, 4))
    videos = np.repeat(video_of(3, 9, 8), 4, axis=0)
    for k in range(3):
        videos[1 + k, k] = 1 - videos[1 + k, k]
    outputs = np.asarray(run(model, params, videos)[0])
    changes = np.abs(outputs[1:] - outputs[:1]).max((2, 3, 4))
    assert changes.min() > 1e-3, changes
    alone = run(model, params, np.repeat(videos[2:3], 4, axis=0))[0]
    close(alone, np.repeat(outputs[2:3], 4, axis=0))


@pytest.mark.parametrize(("t", "n"), [(2, 2)])
def test_one_clip_never_touches_the_alignment(t, n):
    """N = T: other alignment weights change nothing, and their gradient and SpyNet's are zero."""
    model, params = tiny(clip_size=n)
    video = video_of(t, 9, 8)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective(params):
        output = model.apply({"params": params}, video)
        return (output**2).sum(), output

    def of_alignment(path):
        return "/align/" in path or path.startswith("spynet/")

    (_, output), gradient = objective(params)
    for path, array in mapping.flatten(gradient).items():
        assert bool(np.any(array)) != of_alignment(path), path
    other = {path: array + of_alignment(path) for path, array in mapping.flatten(params).items()}
    np.testing.assert_array_equal(objective(mapping.nest(other))[0][1], output)


@pytest.mark.parametrize("n", [1, 3])
def test_the_parameters_do_not_depend_on_the_clips_length(n):
    model = build("rvrt", **(TINY | {"clip_size": n}))
    trees = [
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, t, 8, 8, 3)))
        for t in (n, 2 * n)
    ]
    assert trees[0] == trees[1]


def test_initial_sampling_offsets_are_zero():
    """The last convolution of each alignment starts at zero, so sampling starts at the flow."""
    align = rvrt.GuidedDeformAttn(2, 4, 2, (3, 3), 10.0, 8, "streamed")
    x, flows = jnp.ones((1, 2, 3, 4, 8)), jnp.zeros((1, 2, 2, 3, 4, 2))

    @jax.jit  # the rest of the parameters' random numbers would take long to compile
    def last_layer():
        return align.init(jax.random.key(0), x, x, x, flows)["params"]["offset_conv_5"]

    assert not any(np.any(array) for array in last_layer().values())


# Options


@pytest.mark.slow
def test_remat_changes_no_number():
    """For the last branch and all after it: compiling more gradients would take minutes."""
    video = video_of(4, 8, 9)

    def differentiate(**fields):
        model, params = tiny(depths=(1, 1, 1), **fields)
        late = {name: params.pop(name) for name in ("forward_2", "reconstruct", "upsampler")}

        @jax.jit
        @jax.value_and_grad
        def objective(late):
            output = model.apply({"params": params | late}, video)
            return charbonnier(output, jnp.full_like(output, 0.5))

        loss, gradient = objective(late)
        return loss, mapping.flatten(gradient)

    (loss, gradient), (other_loss, other) = differentiate(), differentiate(remat=True)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for path, array in gradient.items():
        scale = float(np.linalg.norm(array))
        np.testing.assert_allclose(other[path], array, rtol=0, atol=1e-4 * scale, err_msg=path)


def psnr(a, b):
    return -10 * np.log10(np.mean((np.asarray(a, np.float64) - b) ** 2))


def test_bfloat16_stays_within_a_fiftieth_of_a_decibel():
    """Against a truth that float32 misses by 30 dB; flow is float32 and therefore the same.

    The residual is made as small as a trained network's, a twentieth of the made-up one's.
    """
    model, params = tiny()
    last = params["upsampler"]["conv_out"]
    last["kernel"], last["bias"] = 0.05 * last["kernel"], 0.05 * last["bias"]
    video = video_of(4, 8, 9)
    output, intermediates = run(model, params, video)
    rounded, others = run(model.clone(dtype=jnp.bfloat16), params, video)
    assert rounded.dtype == jnp.float32
    truth = output + np.random.default_rng(0).normal(0, 10**-1.5, output.shape)
    assert 0 < abs(psnr(rounded, truth) - psnr(output, truth)) < 0.02
    for name in ("flows_forward", "flows_backward"):
        close(others[name][0], intermediates[name][0])
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(others["guidance"]))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(others["features"]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_numpy_parameters_outside_jit(dtype):
    """Traced only: loaded weights are NumPy arrays, which a traced index cannot look up."""
    model, params = tiny(dtype=dtype, upscale=1, nonblind_denoising=True)
    video = video_of(4, 12, 8, channels=4)
    out = jax.eval_shape(lambda video: model.apply({"params": params}, video), video)
    assert out.shape == (1, 4, 12, 8, 3) and out.dtype == jnp.float32


def test_what_denoises_first_does_not_learn():
    model, params = tiny(upscale=1, feature_stride=2, nonblind_denoising=True, denoise_first=True)
    video = video_of(4, 8, 10, channels=4)

    @jax.jit
    @jax.grad
    def gradient(denoiser):
        made = model.apply({"params": params | {"image_denoiser": denoiser}}, video)
        return charbonnier(made, video[..., :3])

    found = gradient(params["image_denoiser"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_numpy_bias_table_inside_a_loop():
    attention = WindowAttention((1, 2, 2), heads=2)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 1, 2, 4, 6), np.float32))
    variables = attention.init(jax.random.key(0), x[0], None)
    as_numpy = jax.tree.map(np.asarray, variables)
    looped = jax.lax.map(lambda x: attention.apply(as_numpy, x, None), x)
    np.testing.assert_allclose(looped[1], attention.apply(variables, x[1], None), atol=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({}, (1, 5, 8, 8, 3), "has 5 frames; RVRT needs a multiple of clip_size=2"),
        ({"clip_size": 3}, (1, 4, 8, 8, 3), "Drop 1 frames"),
        ({"upscale": 1}, (1, 2, 8, 9, 3), "8x9.*multiples of 4"),
        ({}, (1, 2, 8, 8, 4), "4 channels; this model takes 3"),
        ({"upscale": 1, "nonblind_denoising": True}, (1, 2, 8, 8, 3), "3 channels.*takes 4"),
        ({"upscale": 2}, (1, 2, 8, 8, 3), "upscale is 2"),
        ({"upscale": 1, "feature_stride": 3}, (1, 2, 9, 9, 3), "feature_stride is 3.*2 or 4"),
        ({"upscale": 1, "feature_stride": 2}, (1, 2, 8, 9, 3), "8x9.*multiples of 2"),
        ({"along_motion": True}, (1, 2, 8, 8, 3), "are for an RVRT with upscale=1"),
        (
            {"upscale": 1, "along_motion": True, "warped_neighbours": True},
            (1, 2, 8, 8, 3),
            "not both",
        ),
        ({"upscale": 1, "denoise_first": True}, (1, 2, 8, 8, 3), "needs nonblind_denoising"),
        (
            {"attention": "fast"},
            (1, 2, 8, 8, 3),
            "'fast'; choose from .'at_once', 'plain', 'streamed'",
        ),
    ],
)
def test_bad_input(fields, shape, message):
    model = build("rvrt", **(TINY | fields))
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def test_build_names_what_it_does_not_know():
    with pytest.raises(UserError, match="unknown model 'rvrt_srx'.*'rvrt', 'rvrt_deblur'"):
        build("rvrt_srx")
    with pytest.raises(UserError, match="no field depth, width"):
        build("rvrt_sr", width=3, depth=2)


def test_build_takes_a_published_config():
    config = json.loads(str(goldens.load("rvrt/denoise")["config"]))
    assert "img_size" in config
    model = build("rvrt_sr", **config)
    assert model.window_size == (2, 8, 8) and model.takes_noise_level
    assert (model.scale, model.size_multiple, model.time_multiple) == (1, 4, 2)
    assert (build("rvrt_sr").scale, build("rvrt_sr").size_multiple) == (4, 1)
