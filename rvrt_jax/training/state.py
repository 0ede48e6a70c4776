"""What a training run carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

Params = Any  # nested dict of float32 arrays


@struct.dataclass
class TrainState:
    """Everything that a step reads and writes, on the device.

    step: batches consumed so far, skipped ones included. ema: running average of `params`, or
    None. skipped, skipped_in_row: steps left out because of a non-finite loss or gradient.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    ema: Params | None
    skipped: jax.Array
    skipped_in_row: jax.Array

    @property
    def weights(self) -> Params:
        """The parameters to evaluate and to publish: the average where there is one."""
        return self.params if self.ema is None else self.ema


def create(params: Params, optimizer: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """Returns the state before the first step."""
    # One array a field: shared ones would be the same buffer when a caller donates the state.
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        ema=params if ema else None,
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )
