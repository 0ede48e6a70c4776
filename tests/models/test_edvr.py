"""EDVR against the golden networks, and what does not need them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import goldens

from rvrt_jax.errors import UserError
from rvrt_jax.models import build
from rvrt_jax.models.pcd import DeformPack
from rvrt_jax.ops import platforms
from rvrt_jax.training import state
from rvrt_jax.weights import families, mapping
from rvrt_jax.weights import load as loading


@functools.cache
def golden(name):
    """Returns (model, params, arrays) of tests/golden/edvr/<name>.npz."""
    arrays = goldens.load(f"edvr/{name}")
    state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    fields = families.detect(state)
    assert fields is not None and fields.pop("name") == "edvr"
    return *loading.from_state_dict("edvr", state, **fields), arrays


def run(model, params, video):
    """Returns the middle frame and what the model records on the way."""
    apply = functools.partial(model.apply, mutable=["intermediates", "diagnostics"])
    out, recorded = jax.jit(apply)({"params": params}, video)
    return out, recorded


def in_halves(model, params, video):
    """Returns the middle frame as a sliding window makes it, from features of each frame."""
    features = jax.jit(functools.partial(model.apply, method="features"))
    frames = [features({"params": params}, video[:, i]) for i in range(model.window)]
    window = jax.tree.map(lambda *levels: jnp.stack(levels), *frames)
    fuse = jax.jit(functools.partial(model.apply, method="fuse", mutable=["diagnostics"]))
    out, recorded = fuse({"params": params}, window, video[:, model.centre])
    return out[:, None], recorded


def as_accelerators_do(model, params, video):
    """Returns what `run` does, from all frames in one batch."""
    with platforms.known_to_be("cuda"):
        return run(model, params, video)


@pytest.mark.parametrize(
    ("name", "way"),
    [("deblur", run), ("sr_stage2_2019", in_halves), ("sr_stage2_2019", as_accelerators_do)],
)
def test_golden_output(name, way):
    model, params, arrays = golden(name)
    out, recorded = way(model, params, goldens.channels_last(arrays["input"]))
    assert out.dtype == jnp.float32 and out.shape[1] == 1
    # The golden run was in float64; float32 rounding through the network stays below 1e-5.
    expected = goldens.channels_last(arrays["output"])
    np.testing.assert_allclose(out[:, 0], expected, atol=1e-5)
    if name == "deblur":
        aligned = recorded["intermediates"]["aligned"][0]
        np.testing.assert_allclose(aligned, goldens.channels_last(arrays["aligned"]), atol=1e-5)
        # The golden file has the largest offset of each deformable convolution.
        largest = max(json.loads(str(arrays["meta_json"]))["offset_absmax"])
        assert float(recorded["diagnostics"]["offset_max"]) == pytest.approx(largest, rel=1e-4)
    assert 0.5 < float(recorded["diagnostics"]["offset_mean"]) < 1.5  # their RMS is 1.5


def test_golden_gradients():
    """Of the summed Charbonnier loss, for every parameter and the input, in one program."""
    model, params, arrays = golden("sr_gradients")
    video, gt = (goldens.channels_last(arrays[key]) for key in ("input", "gt"))

    @jax.jit
    def gradients(params, video):
        def loss(params, video):
            out = model.apply({"params": params}, video)[:, 0]
            return jnp.sqrt((out - gt) ** 2 + 1e-12).sum(), out

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, video)

    (loss, out), (d_params, d_video) = gradients(params, video)
    np.testing.assert_allclose(out, goldens.channels_last(arrays["output"]), atol=1e-5)
    assert float(loss) == pytest.approx(float(arrays["loss"]), rel=1e-6)
    d_input = goldens.channels_last(arrays["grad_input"])
    assert np.linalg.norm(d_video - d_input) < 1e-3 * np.linalg.norm(d_input)
    table = families.table("edvr", {})
    flat = {path: np.asarray(leaf) for path, leaf in mapping.flatten(d_params).items()}
    state = mapping.to_state(table, flat)
    expected = {k.removeprefix("grad/"): v for k, v in arrays.items() if k.startswith("grad/")}
    assert state.keys() == expected.keys()
    for (key, direction), norm in zip(expected.items(), arrays["norms"], strict=True):
        # float16 rounds the direction by 2.8e-4 of its norm.
        assert np.linalg.norm(state[key] / norm - direction.astype(np.float32)) < 1e-3, key


TINY = {"num_feat": 4, "num_frame": 3, "deformable_groups": 2}
TINY |= {"num_extract_block": 1, "num_reconstruct_block": 1}


def test_initial_parameters():
    fresh = jax.jit(functools.partial(state.draw, build("edvr", **TINY), 0))()
    flat = {path: np.asarray(leaf) for path, leaf in mapping.flatten(fresh).items()}
    for path, leaf in flat.items():
        if "conv_offset" in path or ("dcn" in path and path.endswith("bias")):
            assert not leaf.any(), path
        elif path.endswith("bias"):
            width = int(np.prod(flat[path.replace("bias", "kernel")].shape[:3]))
            residual = "/conv1/" in path or "/conv2/" in path
            bound = 1.000001 * width**-0.5
            assert not leaf.any() if residual else 0 < np.abs(leaf).max() <= bound, path
        elif "/conv1/" in path or "/conv2/" in path:
            assert leaf.std() == pytest.approx(0.1 * np.sqrt(2 / 36), rel=0.3), path
        else:
            bound = 1.000001 * np.prod(leaf.shape[:3]) ** -0.5
            assert 0.6 * bound < np.abs(leaf).max() <= bound, path


def test_bounded_offsets_and_bfloat16():
    """A deformable convolution whose offsets are all 9 pixels, bounded to 1: a shift by one."""
    pack = DeformPack(groups=2, bound=1.0, dtype=jnp.bfloat16)
    x = np.random.default_rng(0).random((1, 6, 7, 4)).astype(jnp.bfloat16)
    kernel = np.zeros((3, 3, 4, 4), np.float32)
    kernel[1, 1] = np.eye(4)
    offsets = {"kernel": np.zeros((3, 3, 4, 54), np.float32), "bias": np.full(54, 9, np.float32)}
    params = {"kernel": kernel, "bias": np.zeros(4, np.float32), "conv_offset": offsets}
    out, size = jax.jit(pack.apply)({"params": params}, x, 0 * x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(size, [[1, 1]], rtol=1e-6)
    shifted = np.pad(x.astype(np.float32), ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    # The masks are sigmoid(9), all but 1; bfloat16 keeps 8 bits.
    np.testing.assert_allclose(out.astype(np.float32), shifted, atol=0.01)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({}, (1, 2, 8, 8, 3), "2 frames; EDVR takes windows of num_frame=3"),
        ({}, (1, 3, 8, 10, 3), "8x10; with hr_in=False .* multiples of 4"),
        ({"hr_in": True}, (1, 3, 24, 16, 3), "24x16; with hr_in=True .* multiples of 16"),
        ({}, (1, 3, 8, 8, 4), "4 channels"),
        ({"deformable_groups": 3}, (1, 3, 8, 8, 3), "no multiple of deformable_groups=3"),
        ({"center_frame_idx": 3}, (1, 3, 8, 8, 3), "center_frame_idx is 3.* 0 to 2"),
        ({"deform_conv": "cuda"}, (1, 3, 8, 8, 3), "deform_conv is 'cuda'"),
    ],
)
def test_what_does_not_fit_is_named(fields, shape, message):
    model = build("edvr", **TINY | fields)
    video = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), video)


def test_the_predeblur_network_shares_its_part_with_edvr():
    whole = build("edvr", **TINY, hr_in=True, with_predeblur=True)
    video = jax.ShapeDtypeStruct((2, 3, 16, 16, 3), jnp.float32)
    theirs = jax.eval_shape(whole.init, jax.random.key(0), video)["params"]["predeblur"]
    for hr_in, size in ((True, 16), (False, 64)):
        net = build("predeblur", num_feat=4, hr_in=hr_in)
        params = jax.eval_shape(net.init, jax.random.key(0), video)
        assert jax.eval_shape(net.apply, params, video).shape == (2, 3, size, size, 3)
        assert (params["params"]["predeblur"] == theirs) == hr_in
