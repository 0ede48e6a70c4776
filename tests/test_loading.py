import jax
import numpy as np

from rvrt_jax import loading


def test_packaged_spynet_is_complete_and_trained():
    params = loading.spynet_params()
    assert sorted(params) == [f"level_{i}" for i in range(6)]
    assert params["level_0"]["conv_0"]["kernel"].shape == (7, 7, 8, 32)
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == 1_440_300
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)
