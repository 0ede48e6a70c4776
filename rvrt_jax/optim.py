"""Learning-rate schedule and optimizer: Adam in two groups, the flow network and the rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

FLOW_KEY = "spynet"  # the parameters below this name form the flow group

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def cosine(*, peak: float, floor: float, steps: int, warmup_steps: int = 0) -> Schedule:
    """Falls along half a cosine from `peak` at step 0 to `floor` at `steps`; stays there.

    Staying there matters: the published scheduler restarts at the peak on the very last step.
    A warm-up multiplies the first `warmup_steps` rates by a linear climb towards 1.
    """

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.minimum(step / steps, 1.0)
        value = floor + 0.5 * (peak - floor) * (1 + jnp.cos(jnp.pi * progress))
        return value * jnp.minimum((step + 1) / (warmup_steps + 1), 1.0)

    return rate


def adam(
    *,
    flow_multiplier: float,
    flow_frozen: bool,
    clip_norm: float | None = None,
    betas: tuple[float, float] = (0.9, 0.99),
) -> optax.GradientTransformation:
    """Adam's direction, to be multiplied by minus the learning rate by the caller.

    The flow network's part is scaled by `flow_multiplier`. With `flow_frozen` its update is zero
    and its state is left alone, so that its moments start when it thaws, as they do in PyTorch;
    the state has the same structure either way, and a run passes from one to the other as it is.
    `clip_norm` limits the norm of the whole gradient first.
    """

    def direction() -> optax.GradientTransformation:
        return optax.scale_by_adam(b1=betas[0], b2=betas[1])

    flow = optax.chain(direction(), optax.scale(flow_multiplier))
    groups = optax.partition(
        {"flow": _hold(flow) if flow_frozen else flow, "rest": direction()}, _label
    )
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(clip, groups)


def _label(params: Any) -> Any:
    """Names the group of every parameter by the keys on its path."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return "flow" if FLOW_KEY in keys else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


def _hold(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns a transformation with the state of `inner` that neither moves nor changes it."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformation(inner.init, update)
