"""What `look_inside` shows is what the network computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small import small

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import alignment
from rvrt_jax.evaluation.alignment import look_inside
from rvrt_jax.models.layers import Linear, Mlp

VIDEO = np.random.default_rng(0).random((4, 9, 12, 3), np.float32)


def test_the_network_goes_on_from_what_is_shown():
    """Projected and refined, the aligned features are the branch's next hidden state."""
    loaded, _ = small("rvrt")
    model, params = loaded.model, loaded.params
    inside = look_inside(model, params, VIDEO)
    state = alignment._intermediates(model, params, VIDEO[None])
    features = {name: x[1] for name, x in state["features"][0].items()}
    own = params["forward_1"]["align"]
    x = Linear(16).apply({"params": own["proj"]}, inside.aligned[None])
    aligned = x + Mlp(32).apply({"params": own["mlp"]}, x)
    earlier = [features["shallow"], features["backward_1"]]
    hidden = model.bind({"params": params}).forward_1.refine(earlier, aligned)
    np.testing.assert_allclose(hidden, features["forward_1"], atol=1e-5)
    without = model.bind({"params": params}).forward_1.refine(earlier, 0 * aligned)
    assert np.abs(without - features["forward_1"]).max() > 1e-3


def test_weights_are_shares_and_positions_start_at_the_flow():
    loaded, _ = small("rvrt")
    still = jax.tree.map(jnp.asarray, loaded.params)
    last = still["forward_1"]["align"]["offset_conv_5"]
    still["forward_1"]["align"]["offset_conv_5"] = jax.tree.map(jnp.zeros_like, last)
    inside = look_inside(loaded.model, still, VIDEO)
    np.testing.assert_allclose(inside.weights.sum((1, 2)), 1, atol=1e-5)
    assert inside.support.tolist() == [[0, 1], [1, 0]]
    middle = inside.positions[:, :, :, 4]  # of 3x3 taps
    grid = np.stack(np.mgrid[:9, :12], axis=-1)[None, None, None]
    expected = np.broadcast_to(grid + inside.flow[:, :, None, ..., ::-1], middle.shape)
    np.testing.assert_allclose(middle, expected, atol=1e-4)
    assert np.abs(inside.flow).max() > 0.01


@pytest.mark.parametrize("clip", [0, 2])
def test_without_a_clip_before_there_is_nothing_to_see(clip):
    loaded, _ = small("rvrt")
    with pytest.raises(UserError, match="2 clips of 2 frames.*Give 1 or more"):
        look_inside(loaded.model, loaded.params, VIDEO, clip=clip)
