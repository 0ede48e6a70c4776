"""LPIPS against the published implementation, whose numbers tests/golden/lpips/make.py made."""

import numpy as np
import pytest
from helpers import goldens

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation.lpips import lpips
from rvrt_jax.weights import catalogue, mapping
from rvrt_jax.weights import lpips as weights

NETS = ["alex", "vgg"]


def made_up(net):
    """The golden run's weights by published key; the heads are positive, as trained ones are."""
    shapes = weights.shapes(net)
    empty = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    state = mapping.to_state(weights.TABLE, empty)
    state = {key: goldens.fill(key, array.shape, 0) for key, array in state.items()}
    return {key: np.abs(a) if key.startswith("lin") else a for key, a in state.items()}


@pytest.fixture(scope="module", params=NETS)
def net(request):
    """(name of the classifier, parameters with made-up weights)."""
    return request.param, weights.to_params(request.param, made_up(request.param))


def pair(i):
    """A degraded picture and the picture, [h, w, 3] in [0, 1], of odd sizes."""
    arrays = goldens.load("lpips/lpips")
    return arrays[f"a{i}"] / np.float32(255), arrays[f"b{i}"] / np.float32(255)


@pytest.mark.parametrize("i", range(4))
def test_made_up_weights_give_the_published_numbers(net, i):
    name, params = net
    expected = goldens.load("lpips/lpips")[f"{name}/made_up"][i]
    # float32 here, float64 there; the numbers lie between 5e-4 and 3e-2.
    np.testing.assert_allclose(lpips(params, *pair(i), net=name), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", NETS)
def test_trained_weights_give_the_published_numbers(name):
    try:
        path, _ = catalogue.find(f"lpips_{name}")
    except UserError as error:
        pytest.skip(str(error))
    params = weights.load(name, str(path))
    found = [lpips(params, *pair(i), net=name) for i in range(4)]
    np.testing.assert_allclose(found, goldens.load("lpips/lpips")[f"{name}/trained"], atol=2e-6)


def test_equal_images_are_at_distance_0_and_the_order_does_not_matter(net):
    name, params = net
    a, b = pair(0)
    assert lpips(params, b, b, net=name) < 1e-12
    black = np.zeros_like(b)  # some features are 0 everywhere
    assert 0 < lpips(params, black, b, net=name) < 10
    np.testing.assert_allclose(
        lpips(params, a, b, net=name), lpips(params, b, a, net=name), rtol=1e-6
    )


def test_images_that_cannot_be_compared_are_refused(net):
    name, params = net
    a, b = pair(0)
    with pytest.raises(ValueError, match="give two"):
        lpips(params, a[:40], b, net=name)
    smallest = {"alex": 31, "vgg": 16}[name]
    assert np.isfinite(lpips(params, a[:smallest], b[:smallest], net=name))
    with pytest.raises(ValueError, match=f"{smallest} is needed"):
        lpips(params, a[:, : smallest - 1], b[:, : smallest - 1], net=name)
