"""What a training run carries from step to step, and what it starts from."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from rvrt_jax import parallel
from rvrt_jax.models.contract import Network, in_channels
from rvrt_jax.training import identity, optim
from rvrt_jax.training.settings import Settings
from rvrt_jax.weights import load as loading

Params = Any  # nested dict of float32 arrays
IMAGE_DENOISER = "image_denoiser"  # what denoises each frame first, ...
DENOISER = "ffdnet_color"  # ... and the weights it has
FLOW = "spynet"  # where networks with a flow network keep its parameters


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


def abstract(settings: Settings, model: Network) -> TrainState:
    """Returns shapes and dtypes of the state: making real ones takes long to compile."""
    return jax.eval_shape(lambda: _create(settings, model, draw(model, settings.seed)))


def starts_from(settings: Settings, network: Mapping[str, Any]) -> list[str]:
    """Returns the weights, beside SpyNet's, that `fresh` takes parameters from."""
    denoiser = [DENOISER] if network.get("denoise_first") else []
    if not settings.init_from:
        return denoiser
    return [settings.init_from, *(denoiser if settings.init_partial else [])]


def fresh(settings: Settings, model: Network, network: Mapping[str, Any]) -> TrainState:
    """Returns random parameters, trained SpyNet and FFDNet, or those of `settings.init_from`.

    network: name and fields of the model, which must fit what `init_from` holds unless
    `settings.init_partial`.
    """
    if settings.init_from and not settings.init_partial:
        _, params = loading.load(settings.init_from, **network)
    else:
        params = draw(model, settings.seed)
        if FLOW in params:
            params = {**params, FLOW: loading.spynet_params()}
        if IMAGE_DENOISER in params:
            params = {**params, IMAGE_DENOISER: loading.load(DENOISER)[1]}
        if settings.init_from:
            params, report = loading.fill(params, settings.init_from)
            logging.warning(report)
        if settings.identity_start:
            params = identity.pass_pixels(params)
    params = jax.device_put(params, parallel.replicated())
    return jax.device_put(_create(settings, model, params), parallel.replicated())


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(model: Network, seed: int) -> Params:
    """Draws parameters, a nested dict."""
    video = jnp.zeros((1, *model.example_size(), in_channels(model)))
    # This generator compiles in a third of the time of the default one.
    return model.init(jax.random.key(seed, impl="unsafe_rbg"), video)["params"]


def _create(settings: Settings, model: Network, params: Params) -> TrainState:
    groups = optim.learning_groups(settings, model.parameter_groups())
    optimizer = optim.adam(groups, clip_norm=settings.clip_norm)
    return create(params, optimizer, ema=bool(settings.ema_decay))
