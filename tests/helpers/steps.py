"""Training steps of the stand-in network; as a program, on as many devices as it sees."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from helpers import standin

from rvrt_jax import parallel
from rvrt_jax.training import optim, state, step

BATCH = {k: np.stack([standin.Noise(1).map(i)[k] for i in range(4)]) for k in ("lq", "gt")}


def params():
    drawn = jax.jit(standin.Net().init)(jax.random.key(0), BATCH["lq"])["params"]
    return {**drawn, "spynet": standin.flow_params()}


def apply(weights, video):
    return standin.Net().apply({"params": weights}, video)


def observed(weights, video):
    output, sowed = standin.Net().apply({"params": weights}, video, mutable=["intermediates"])
    return output, step.motion(sowed)


def train(start, batches, *, flow_frozen=False, ema_decay=None, accumulate=1, lr=1e-2):
    groups = (optim.Group("flow", "spynet", 0.25),)
    frozen = {"flow"} if flow_frozen else frozenset()
    optimizer = optim.adam(groups, frozen=frozen)
    one_step = parallel.data_parallel(
        step.make(
            observed,
            optimizer,
            lambda _: jnp.asarray(lr),
            groups=groups,
            frozen=frozen,
            ema_decay=ema_decay,
            accumulate=accumulate,
            axis_name=parallel.AXIS,
        )
    )
    current = state.create(start, optimizer, ema=bool(ema_decay))
    current = jax.device_put(current, parallel.replicated())
    for batch in batches:
        current, metrics = one_step(current, parallel.split(batch))
    return current, {key: float(value) for key, value in metrics.items()}


if __name__ == "__main__":
    trained, values = train(params(), [BATCH] * 3, ema_decay=0.9)
    leaves = [np.asarray(x) for x in jax.tree.leaves((trained.params, trained.opt_state))]
    np.savez(sys.argv[1], *leaves, metrics=json.dumps(values), devices=jax.device_count())
