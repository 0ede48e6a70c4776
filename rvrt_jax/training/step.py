"""One optimizer step."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from rvrt_jax import parallel
from rvrt_jax.models.contract import Network, traced_for
from rvrt_jax.models.layers import mean_and_max_length
from rvrt_jax.training import losses, optim
from rvrt_jax.training.losses import Loss
from rvrt_jax.training.optim import Group, Schedule
from rvrt_jax.training.settings import Settings
from rvrt_jax.training.state import Params, TrainState

Values = dict[str, jax.Array]  # scalars by name
Apply = Callable[[Params, jax.Array], tuple[jax.Array, Values]]


def programs(
    settings: Settings, model: Network, groups: Sequence[Group]
) -> Callable[[frozenset[str]], Callable[..., Any]]:
    """Returns a function from the frozen groups' names to the step, compiled when first called.

    groups: as `optim.learning_groups` returns them; a run has at most two sets of frozen ones. Each
    step is as `parallel.data_parallel` returns it.
    """

    last = settings.backward_frames
    options = {"backward_frames": last} if last else {}

    def apply(params: Params, video: jax.Array) -> tuple[jax.Array, Values]:
        prediction, sowed = model.apply(
            {"params": params}, video, mutable=["intermediates"], **options
        )
        return prediction[:, -last:], motion(sowed)  # -0: all

    wanted = targets(settings, model)

    def select(gt: jax.Array) -> jax.Array:
        # The input may have left the others out.
        return gt if model.window is not None and gt.shape[1] == 1 else gt[:, wanted]

    loss = losses.chosen(settings)

    @functools.cache
    def compiled(frozen: frozenset[str]) -> Callable[..., Any]:
        one_device = make(
            apply,
            optim.adam(groups, frozen=frozen, clip_norm=settings.clip_norm),
            optim.schedule(settings),
            groups=groups,
            frozen=frozen,
            loss=loss,
            select=select,
            ema_decay=settings.ema_decay,
            accumulate=settings.accumulate,
            axis_name=parallel.AXIS,
        )

        def for_these_devices(state: TrainState, batch: dict[str, jax.Array]) -> Any:
            with traced_for(jax.devices()[0]):
                return one_device(state, batch)

        return parallel.data_parallel(for_these_devices)

    return compiled


def targets(settings: Settings, model: Network) -> slice:
    """Returns which frames of the ground truth the loss needs."""
    if model.window is None:
        return slice(-settings.backward_frames or None, None)
    return slice(model.centre, model.centre + 1)


def make(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    learning_rate: Schedule,
    *,
    groups: Sequence[Group],
    frozen: Collection[str] = (),
    loss: Loss = losses.charbonnier,
    select: Callable[[jax.Array], jax.Array] = lambda gt: gt,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns `step(state, batch) -> (state, metrics)` for one of the devices on `axis_name`.

    apply(params, lq) is the network; it returns the prediction and what else to report, such as
    `motion`. batch: lq [b, t, h, w, c] and gt [b, t, s*h, s*w, 3], uint8, or float in [0, 1], this
    device's share, taken in `accumulate` parts one after another. No gradient is computed at all of
    those of `groups` whose names are `frozen`. loss(prediction, target): of a part, averaged over
    parts and devices. select(gt): what the network predicts of the ground truth. A step whose loss
    or gradient is not finite changes nothing but the counters. Metrics are scalars: loss, mse
    (prediction clipped to [0, 1]), grad_norm (before clipping), grad_norm_flow and grad_norm_rest
    where there is a flow network, lr, skipped, skipped_in_row, and what `apply` reports: averaged
    over the batch, or its maximum where the name ends in "_max".
    """

    def objective(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, Values]:
        prediction, reported = apply(
            optim.stop_frozen_gradients(params, groups, frozen), to_unit(batch["lq"])
        )
        target = to_unit(select(batch["gt"]))
        mse = jnp.mean((jnp.clip(prediction, 0, 1) - target) ** 2)
        return loss(prediction, target), {"mse": mse} | reported

    differentiate = jax.value_and_grad(objective, has_aux=True)

    def average(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, Values, Params]:
        """Loss, reported values and gradient over this device's parts and over all devices."""
        if accumulate == 1:
            (loss, values), gradient = differentiate(params, batch)
        else:
            parts = jax.tree.map(
                lambda x: rearrange(x, "(a b) ... -> a b ...", a=accumulate), batch
            )

            def add(total: Params, part: dict[str, jax.Array]) -> tuple[Params, Any]:
                results, gradient = differentiate(params, part)
                return jax.tree.map(jnp.add, total, gradient), results

            # The sum is carried along: memory holds one gradient, however many parts there are.
            zeros = jax.tree.map(jnp.zeros_like, params)
            total, (losses, each) = jax.lax.scan(add, zeros, parts)
            gradient = jax.tree.map(lambda x: x / accumulate, total)
            loss = jnp.mean(losses)
            values = {k: (jnp.max if _is_max(k) else jnp.mean)(x) for k, x in each.items()}
        loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
        over = {k: jax.lax.pmax if _is_max(k) else jax.lax.pmean for k in values}
        return loss, {k: over[k](v, axis_name) for k, v in values.items()}, gradient

    def step(
        state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        value, values, gradient = average(state.params, batch)
        grad_norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        lr = learning_rate(state.step)

        direction, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
        ema = state.ema
        if ema_decay:
            # A short memory at first, so that the average is not held back by the start.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)

        new = (params, opt_state, ema)
        old = (state.params, state.opt_state, state.ema)
        params, opt_state, ema = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            ema=ema,
            skipped=state.skipped + ~finite,
            skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
        )
        metrics = values | {
            "loss": value,
            "grad_norm": grad_norm,
            **optim.norms_apart(gradient, groups),
            "lr": lr,
            "skipped": state.skipped,
            "skipped_in_row": state.skipped_in_row,
        }
        return state, metrics

    return step


def to_unit(pixels: jax.Array) -> jax.Array:
    """Returns uint8 pixels as float32 in [0, 1]: exactly x / 255, rounded; floats as they are.

    Compilers turn a division by a constant into a product, which is off by a bit for half of the
    levels, and accelerators approximate quotients. A product with a power of two is exact, the
    other one small, and their sum right for all 256 levels, in one rounding or in two.
    """
    if pixels.dtype != jnp.uint8:
        return pixels
    x = pixels.astype(jnp.float32)
    return x * jnp.float32(1 / 256) + x * jnp.float32(1 / 255 - 1 / 256)


def motion(intermediates: Any) -> Values:
    """Returns how far a network looks, in pixels of its features: trouble shows here first.

    intermediates: what it sowed. flow_mean, flow_max: length of SpyNet's flows; offset_mean,
    offset_max: of what the alignment adds to them, or of EDVR's offsets along one axis. Empty for a
    network that sows neither.
    """
    found: dict[str, list[jax.Array]] = {"flow": [], "offset": []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(intermediates):
        keys = {key.key for key in path if isinstance(key, jax.tree_util.DictKey)}
        if keys & {"flows_backward", "flows_forward"} and leaf.size:
            found["flow"].append(mean_and_max_length(leaf))
        elif keys & {"residue_lengths", "offset_lengths"} and leaf.size:
            found["offset"].append(leaf.reshape(-1, 2))
    values = {}
    for name, measured in found.items():
        if measured:
            pairs = jnp.concatenate([pair.reshape(-1, 2) for pair in measured])
            values |= {f"{name}_mean": jnp.mean(pairs[:, 0]), f"{name}_max": jnp.max(pairs[:, 1])}
    return values


def _is_max(name: str) -> bool:
    return name.endswith("_max")
