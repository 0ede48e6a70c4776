"""FFDNet against the formula of its paper in PyTorch (tests/golden/ffdnet/make.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import goldens

from rvrt_jax.errors import UserError
from rvrt_jax.models import build
from rvrt_jax.restoration.restore import restore
from rvrt_jax.weights import catalogue, families, pth
from rvrt_jax.weights import load as loading

FIELDS = {"num_feat": 8, "num_conv": 4}


@pytest.fixture(scope="module")
def narrow():
    """(network, parameters) of the golden run with made-up weights."""
    table = families.table("ffdnet", FIELDS)
    shapes = goldens.parameter_shapes(build("ffdnet", **FIELDS))
    return loading.from_state_dict("ffdnet", goldens.state_dict(table, shapes, 0), **FIELDS)


def noisy(sigma):
    """Two frames of 17x21 with their noise level, [1, 2, 17, 21, 4]."""
    frames = goldens.load("ffdnet/ffdnet")[f"noisy/{sigma}"][None] / np.float32(255)
    return np.concatenate([frames, np.full_like(frames[..., :1], sigma / 255)], axis=-1)


@pytest.mark.parametrize("sigma", [0, 50])
def test_made_up_weights_give_the_golden_output(narrow, sigma):
    model, params = narrow
    out = jax.jit(model.apply)({"params": params}, noisy(sigma))
    assert out.dtype == jnp.float32
    expected = goldens.load("ffdnet/ffdnet")[f"made_up/{sigma}"]
    np.testing.assert_allclose(out[0], expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0, 50])
def test_trained_weights_give_the_golden_output(sigma):
    try:
        catalogue.find("ffdnet_color")
    except UserError as error:
        pytest.skip(str(error))
    model, params = loading.load("ffdnet_color")
    assert model == build("ffdnet")
    out = jax.jit(model.apply)({"params": params}, noisy(sigma))
    expected = goldens.load("ffdnet/ffdnet")[f"trained/{sigma}"]
    np.testing.assert_allclose(out[0], expected, atol=1e-5)


def test_restore_takes_frames_of_any_size_one_by_one(narrow):
    model, params = narrow
    frames = noisy(50)[0, :, :, :, :3]
    expected = goldens.load("ffdnet/ffdnet")["made_up/50"]
    np.testing.assert_allclose(restore(model, params, frames, sigma=50), expected, atol=1e-5)
    alone = restore(model, params, frames[:1], sigma=50)
    np.testing.assert_allclose(alone, expected[:1], atol=1e-5)
    with pytest.raises(UserError, match="needs the noise level"):
        restore(model, params, frames)


def test_a_published_file_is_known_by_its_shapes(tmp_path):
    full = goldens.parameter_shapes(build("ffdnet"))
    arrays = goldens.state_dict(families.table("ffdnet", {"num_conv": 12}), full, 0)
    assert arrays["model.0.weight"].shape == (96, 13, 3, 3)
    assert arrays["model.22.bias"].shape == (12,)
    pth.write(tmp_path / "x.pth", arrays)
    assert loading.load(tmp_path / "x.pth")[0] == build("ffdnet")
    # 24 tensors, as the package's file.
    assert len(arrays) == 24
