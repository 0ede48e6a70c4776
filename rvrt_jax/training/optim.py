"""Learning-rate schedules and optimizer: Adam, in groups that learn at rates of their own."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import ParameterGroup
from rvrt_jax.training.settings import Settings

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
        return value * _warmth(step, warmup_steps)

    return rate


def _warmth(step: jax.Array, warmup_steps: int) -> jax.Array:
    return jnp.minimum((step + 1) / (warmup_steps + 1), 1.0)


def cosine_restarts(
    *,
    peak: float,
    floor: float,
    periods: Sequence[int],
    weights: Sequence[float],
    warmup_steps: int = 0,
) -> Schedule:
    """Falls along half a cosine in each of `periods` (in steps), from `weights` times the peak.

    The step at a period's end still belongs to it and has the floor, as do all after the last: the
    rule of EDVR's published training, where a restart comes one step after the boundary. The
    warm-up is that of `cosine`, once, at the start. Raises UserError unless there are as many
    weights as periods.
    """
    if len(weights) != len(periods) or not periods:
        raise UserError(
            f"there are {len(periods)} periods of the learning rate and {len(weights)} weights; "
            "give each period one."
        )
    ends = jnp.cumsum(jnp.array(periods))
    lengths, scale = jnp.array(periods, jnp.float32), jnp.array(weights, jnp.float32)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.minimum(jnp.asarray(step), ends[-1])
        period = jnp.searchsorted(ends, step)
        since = step - jnp.where(period > 0, ends[period - 1], 0)
        progress = since / lengths[period]
        value = floor + 0.5 * scale[period] * (peak - floor) * (1 + jnp.cos(jnp.pi * progress))
        return value * _warmth(step, warmup_steps)

    return rate


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that learn in a way of their own: those with `key` in a name on their path.

    key: "" fits every parameter, None fits none. multiplier: of the learning rate. frozen_steps:
    for how long they keep their values first.
    """

    name: str
    key: str | None
    multiplier: float = 1.0
    frozen_steps: int = 0


REST = Group("rest", "")


def schedule(settings: Settings) -> Schedule:
    """Returns the learning rate of a run, step by step."""
    if settings.lr_periods:
        return cosine_restarts(
            peak=settings.lr,
            floor=settings.lr_floor,
            periods=settings.lr_periods,
            weights=settings.lr_weights,
            warmup_steps=settings.warmup_steps,
        )
    return cosine(
        peak=settings.lr,
        floor=settings.lr_floor,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
    )


def learning_groups(
    settings: Settings, network_groups: Sequence[ParameterGroup]
) -> tuple[Group, ...]:
    """Returns the groups of a network's parameters, and the rest, with how each one learns."""
    multipliers = {"flow": settings.flow_lr_multiplier, "dcn": settings.dcn_lr_multiplier}
    frozen = {"flow": settings.flow_freeze_steps, "dcn": settings.tsa_only_steps}
    groups = [
        Group(group.name, group.key, multipliers.get(group.name, 1.0), frozen.get(group.name, 0))
        for group in network_groups
    ]
    names = {group.name for group in groups}
    # Checkpoints have an entry for each of these, so that the older runs go on whose networks all
    # had a flow group, if an empty one, and whose EDVR without TSA had its convolution in `fusion`.
    stored = {"flow": Group("flow", None)}
    if "dcn" in names:
        stored["fusion"] = Group("fusion", "fusion")
    groups += [group for name, group in stored.items() if name not in names]
    return (*groups, dataclasses.replace(REST, frozen_steps=settings.tsa_only_steps))


def frozen_at(groups: Sequence[Group], step: int) -> frozenset[str]:
    """Returns the names of the groups that do not learn at a step."""
    return frozenset(group.name for group in groups if step < group.frozen_steps)


def frozen_next(groups: Sequence[Group], step: int, steps: int) -> frozenset[str] | None:
    """Returns what will be frozen when the next group thaws, None if none does before `steps`."""
    thaws = [group.frozen_steps for group in groups if step < group.frozen_steps < steps]
    return frozen_at(groups, min(thaws)) if thaws else None


def adam(
    groups: Sequence[Group],
    *,
    frozen: Collection[str] = (),
    clip_norm: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.99),
) -> optax.GradientTransformation:
    """Adam's direction, to be multiplied by minus the learning rate by the caller.

    A parameter belongs to the first of `groups` that it fits, or else to `REST`; its update is
    scaled by the group's multiplier. That of a group whose name is in `frozen` is zero and its
    state is left alone, so that its moments start when it thaws, as they do in PyTorch; the state
    has the same structure either way, and a run passes from one to the other as it is.
    `clip_norm` limits the norm of the whole gradient first; 0 does not.
    """

    def direction(group: Group) -> optax.GradientTransformation:
        moments = optax.scale_by_adam(b1=betas[0], b2=betas[1])
        # A chain of one would change the structure of the state that older runs have written.
        plain = group.name == REST.name and group.multiplier == 1
        inner = moments if plain else optax.chain(moments, optax.scale(group.multiplier))
        return _unchanged(inner) if group.name in frozen else inner

    groups = _complete(groups)
    partition = optax.partition(
        {group.name: direction(group) for group in groups}, functools.partial(_label, groups)
    )
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, partition)


def stop_frozen_gradients(params: Any, groups: Sequence[Group], frozen: Collection[str]) -> Any:
    """Returns `params` so that those of frozen groups get no gradient."""
    labels = _label(_complete(groups), params)
    return jax.tree.map(
        lambda leaf, name: jax.lax.stop_gradient(leaf) if name in frozen else leaf, params, labels
    )


def norms_apart(gradient: Any, groups: Sequence[Group]) -> dict[str, jax.Array]:
    """Returns the norms of a gradient's flow network and of the rest; nothing without the former.

    A flow network that takes most of the gradient, or none, does not show in the norm of all.
    """
    labels = jax.tree.leaves(_label(_complete(groups), gradient))
    parts: dict[str, list[jax.Array]] = {"flow": [], "rest": []}
    for leaf, name in zip(jax.tree.leaves(gradient), labels, strict=True):
        parts["flow" if name == "flow" else "rest"].append(leaf)
    if not parts["flow"]:
        return {}
    return {f"grad_norm_{name}": optax.tree.norm(leaves) for name, leaves in parts.items()}


def _complete(groups: Sequence[Group]) -> tuple[Group, ...]:
    return tuple(groups) if any(group.key == "" for group in groups) else (*groups, REST)


def _label(groups: Sequence[Group], params: Any) -> Any:
    """Names the group of every parameter by the keys on its path."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        fits = (g.name for g in groups if g.key is not None and any(g.key in key for key in keys))
        return next(fits)

    return jax.tree_util.tree_map_with_path(label, params)


def _unchanged(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns a transformation with the state of `inner` that neither moves nor changes it."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformation(inner.init, update)
