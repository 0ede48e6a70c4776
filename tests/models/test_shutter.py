"""How long a shutter was open, against exposures whose share is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax.models.shutter import open_share
from tests.helpers.waves import shaken_waves


def measured(frames, velocity):
    return float(open_share(frames[None], velocity[None, :, None, None])[0, 0, 0, 0, 0])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_share_of_the_time_is_found(share):
    each = [
        measured(blurred, velocity)
        for seed in range(5)
        for blurred, _, velocity in [shaken_waves(open_share=share, size=48, seed=seed)]
    ]
    assert abs(np.mean(each) - share) < 0.15
    assert all(0 <= one <= 1 for one in each)


def test_nothing_is_told_by_steady_motion_by_one_frame_or_by_a_flat_picture():
    blurred, _, velocity = shaken_waves(open_share=1.0)
    assert measured(blurred, np.broadcast_to(velocity[:1], velocity.shape)) < 1e-3
    assert measured(blurred[:1], velocity[:1]) == 0
    assert measured(np.full_like(blurred, 0.3), velocity) < 1e-3


def test_it_is_a_measurement_without_a_gradient():
    blurred, _, velocity = shaken_waves(open_share=0.5)

    def total(frames, velocity):
        return jnp.sum(open_share(frames[None], velocity[None, :, None, None]))

    for gradient in jax.grad(total, argnums=(0, 1))(blurred, velocity):
        assert not np.any(gradient)
