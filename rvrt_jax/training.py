"""A training run from a config to weights, stopping and resuming anywhere."""

import dataclasses
import functools
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rvrt_jax import checkpoint, loading, models, optim, parallel, state, step, validation
from rvrt_jax.checkpoint import Checkpoints
from rvrt_jax.data import pipeline
from rvrt_jax.data.options import Options
from rvrt_jax.errors import UserError
from rvrt_jax.logs import Logs, Meter
from rvrt_jax.state import Params, TrainState

Config = Any  # an ml_collections.ConfigDict, whose values have no static type


def run(config: Config, workdir: str | Path) -> None:
    """Trains as `config` says, or continues where `workdir` stops; returns when done or stopped.

    SIGTERM and Ctrl-C save a checkpoint after the current step and return; the same call goes on
    from there. Raises UserError for what the user can mend.
    """
    workdir = Path(workdir).absolute()  # orbax insists
    _check(config)
    model = build_model(config)
    changes = checkpoint.config_changes(workdir, config.to_dict())
    parallel.wait_for_hosts("config compared")  # before any writes its own
    _check_input(config, model)
    dataset = pipeline.train(
        config.data.to_dict(),
        seed=config.seed,
        batch_size=config.batch_size // jax.process_count(),
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    clips = pipeline.validation(config.data.to_dict())
    if config.init_from and not checkpoint.exists(workdir):
        loading.check_exists(config.init_from)
    _write_config(workdir, config)

    data = iter(dataset)
    silent = not parallel.is_first_host()
    with Checkpoints(workdir) as checkpoints, _stop_signals() as stop:
        abstract = abstract_state(config, model)
        checkpoints.check_space(abstract)
        restored = checkpoints.restore(abstract, data)
        current = _fresh_state(config, model) if restored is None else restored
        with Logs(workdir, start=int(current.step), steps=config.steps, silent=silent) as logs:
            logs.message(_greeting(current, type(model).__name__, config, workdir))
            if restored is not None and changes:
                logs.message(f"changed in the config since: {'; '.join(changes)}")
            if restored is None and clips:
                baseline = validation.bicubic(clips, scale=model.scale)
                logs.scores(0, validation.mean(baseline), baseline, tag="bicubic")
            loop = _Loop(config, model, data, clips, checkpoints, logs, stop)
            loop.run(current)


@dataclass
class StopRequest:
    """Holds the name of the signal that asked the run to stop, if one did."""

    signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@dataclass(frozen=True)
class _Loop:
    """The steps of a run, with what they read and write beside the state."""

    config: Config
    model: Any
    data: Iterator[dict[str, np.ndarray]]
    clips: list[validation.Clip]
    checkpoints: Checkpoints
    logs: Logs
    stop: StopRequest

    def run(self, current: TrainState) -> None:
        """Trains until all steps are done or a stop is requested."""
        config = self.config
        train, groups = steps(config, self.model), _groups(config)
        meter = Meter(self.logs, every=config.log_every, max_skipped=config.max_skipped)
        done = int(current.step)
        compiled: frozenset[str] | None = None
        # Hosts stop together: at the step whose values tell all of them that one was asked to.
        while done < config.steps and not (meter.stop if jax.process_count() > 1 else self.stop):
            batch = self._next_batch()
            if batch is None:
                break
            frozen = optim.frozen_at(groups, done)
            with self.logs.untimed(when=frozen != compiled):  # the call that compiles
                current, values = train(frozen)(current, batch)
            compiled = frozen
            done += 1
            meter.push(done, values)

            scores = None
            if self.clips and (done == config.steps or done % config.eval_every == 0):
                meter.drain()
                scores = self._validate(current.weights, done)
            if scores or done % config.save_every == 0:
                meter.drain()
                self.checkpoints.save(done, current, self.data, scores=scores)
        meter.drain()
        if done != (self.checkpoints.latest() or 0):
            self.checkpoints.save(done, current, self.data)
        self._farewell(done)

    def _next_batch(self) -> dict[str, np.ndarray] | None:
        """Returns a batch for all devices; None if a stop signal has reached the workers too."""
        try:
            with self.logs.waiting():
                batch = next(self.data)
            return parallel.split(batch, stop=bool(self.stop))
        except RuntimeError:  # a worker has ended: a terminal's Ctrl-C goes to all processes
            if self.stop and jax.process_count() == 1:
                return None
            raise

    def _validate(self, weights: Params, done: int) -> dict[str, float] | None:
        """Returns the mean scores; None if a stop comes meanwhile, for there is no time then."""
        alone = jax.process_count() == 1  # several hosts have to agree, which takes a step
        with self.logs.untimed():
            result = validation.score(
                self.model, weights, self.clips, stop=lambda: alone and bool(self.stop)
            )
        if result is None:
            return None
        mean = validation.mean(result.scores)
        self.logs.scores(done, mean, result.scores, tag="validation")
        if result.picture is not None:
            self.logs.picture(done, result.picture, tag="validation")
        return mean

    def _farewell(self, done: int) -> None:
        """Says how the run ended, once the last checkpoint is written."""
        best = self.checkpoints.best()
        if best is not None:
            self.logs.message(f"best so far: step {best[0]}, PSNR {best[1]:.3f} dB")
        if done < self.config.steps:
            asked = self.stop.signal or "another host"
            self.logs.message(
                f"stopped by {asked} after step {done} of {self.config.steps}; the same "
                f"command goes on from step {self.checkpoints.latest() or 0}."
            )
        else:
            self.logs.message(f"done: {done} steps.")


def build_model(config: Config) -> Any:
    """Returns the recipe's network."""
    name, fields = _name_and_fields(config)
    return models.build(name, **fields)


def steps(config: Config, model: Any) -> Callable[[frozenset[str]], Callable[..., Any]]:
    """Returns a function from the frozen groups' names to the step, compiled when first called.

    There are two at most in a run. Each is as `parallel.data_parallel` returns it.
    """

    def apply(params: Params, video: jax.Array) -> tuple[jax.Array, step.Values]:
        prediction, sowed = model.apply({"params": params}, video, mutable=["intermediates"])
        return prediction, step.motion(sowed)

    def select(gt: jax.Array) -> jax.Array:
        return gt if model.window is None else gt[:, model.centre : model.centre + 1]

    learning_rate = _learning_rate(config)
    loss = functools.partial(step.charbonnier, eps=config.loss_eps, reduction=config.loss_reduction)

    @functools.cache
    def compiled(frozen: frozenset[str]) -> Callable[..., Any]:
        one_device = step.make(
            apply,
            _optimizer(config, frozen=frozen),
            learning_rate,
            groups=_groups(config),
            frozen=frozen,
            loss=loss,
            select=select,
            ema_decay=config.ema_decay,
            accumulate=config.accumulate,
            axis_name=parallel.AXIS,
        )
        return parallel.data_parallel(one_device)

    return compiled


def _learning_rate(config: Config) -> optim.Schedule:
    if config.lr_periods:
        return optim.cosine_restarts(
            peak=config.lr,
            floor=config.lr_floor,
            periods=config.lr_periods,
            weights=config.lr_weights,
        )
    return optim.cosine(
        peak=config.lr,
        floor=config.lr_floor,
        steps=config.steps,
        warmup_steps=config.warmup_steps,
    )


def _groups(config: Config) -> tuple[optim.Group, ...]:
    """Returns the groups of parameters: the flow network's, or those of EDVR, and the rest."""
    flow = optim.Group("flow", optim.FLOW_KEY, config.flow_lr_multiplier, config.flow_freeze_steps)
    # By the network, not by these values: they may change on the way, the optimizer's state not.
    if not hasattr(build_model(config), "with_tsa"):
        return (flow,)
    held = config.tsa_only_steps
    return (
        flow,
        optim.Group("fusion", "fusion"),
        optim.Group("dcn", "dcn", config.dcn_lr_multiplier, held),
        dataclasses.replace(optim.REST, frozen_steps=held),
    )


def _optimizer(config: Config, *, frozen: frozenset[str]) -> optax.GradientTransformation:
    return optim.adam(_groups(config), frozen=frozen, clip_norm=config.clip_norm)


def _check(config: Config) -> None:
    """Raises UserError for values that would fail only after a while."""
    positive = ("batch_size", "accumulate", "steps", "log_every", "eval_every", "save_every")
    for keys, least in (
        ((*positive, "max_skipped"), 1),
        (("seed", "warmup_steps", "clip_norm", "ema_decay"), 0),
    ):
        for key in keys:
            if config[key] < least:
                raise UserError(f"config.{key}={config[key]}; it must be at least {least}.")
    if config.lr_periods and sum(config.lr_periods) != config.steps:
        raise UserError(
            f"config.steps={config.steps}, but the periods of the learning rate, config.lr_periods="
            f"{tuple(config.lr_periods)}, take {sum(config.lr_periods)} steps. Set both."
        )
    if not 0 <= config.lr_floor <= config.lr:
        raise UserError(
            f"config.lr={config.lr} and config.lr_floor={config.lr_floor}; "
            "0 <= lr_floor <= lr is needed."
        )
    if config.tsa_only_steps and not config.init_from:
        raise UserError(
            f"config.tsa_only_steps={config.tsa_only_steps}: all but the fusion keeps its weights "
            "so long, so these must be trained ones. Name the run or file of stage a (the recipe's "
            "header says how to train it): --config.init_from=PATH."
        )
    if config.loss_reduction not in step.REDUCTIONS:
        raise UserError(
            f"config.loss_reduction={config.loss_reduction!r}; it must be one of "
            f"{sorted(step.REDUCTIONS)}."
        )
    parallel.check_batch(config.batch_size, accumulate=config.accumulate)


def _check_input(config: Config, model: Any) -> None:
    """Raises UserError if the samples that `config.data` describes do not fit the network."""
    options = Options.read(config.data.to_dict())
    size = options.gt_size // options.scale
    if options.scale != model.scale:
        raise UserError(f"config.data.scale={options.scale}, but the network's is {model.scale}.")
    if options.channels != model.in_channels:
        raise UserError(
            f"config.data.degradation={options.degradation} gives {options.channels} channels; "
            f"the network takes {model.in_channels} (noise levels are the fourth)."
        )
    if options.sample_frames % model.time_multiple:
        raise UserError(
            f"config.data.num_frames={options.num_frames} gives samples of "
            f"{options.sample_frames} frames; the network takes multiples of {model.time_multiple}."
        )
    if model.window not in (None, options.sample_frames):
        raise UserError(
            f"config.data.num_frames={options.num_frames} gives samples of "
            f"{options.sample_frames} frames; the network takes windows of {model.window}."
        )
    if size % model.size_multiple:
        raise UserError(
            f"config.data.gt_size={options.gt_size} gives LQ of {size}x{size}; the network takes "
            f"multiples of {model.size_multiple}."
        )


def _name_and_fields(config: Config) -> tuple[str, dict[str, Any]]:
    fields = config.model.to_dict()
    name = fields.pop("name")
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"])
    return name, fields


def _state(config: Config, params: Params) -> TrainState:
    optimizer = _optimizer(config, frozen=frozenset())
    return state.create(params, optimizer, ema=bool(config.ema_decay))


def abstract_state(config: Config, model: Any) -> TrainState:
    """Returns shapes and dtypes of the state: making real ones takes long to compile."""
    return jax.eval_shape(lambda: _state(config, _init(model, config.seed)))


def _fresh_state(config: Config, model: Any) -> TrainState:
    """Returns random parameters with trained SpyNet ones, or those of `config.init_from`."""
    if config.init_from and not config.init_partial:
        name, fields = _name_and_fields(config)
        _, params = loading.load(config.init_from, name, **fields)
    else:
        params = jax.jit(functools.partial(_init, model, config.seed))()
        if optim.FLOW_KEY in params:
            params = {**params, optim.FLOW_KEY: loading.spynet_params()}
        if config.zero_output:
            last = params["upsampler"]["conv_out"]
            last["kernel"] = jnp.zeros_like(last["kernel"])
        if config.init_from:
            params, report = loading.fill(params, config.init_from)
            logging.warning(report)
    params = jax.device_put(params, parallel.replicated())
    return jax.device_put(_state(config, params), parallel.replicated())


def _init(model: Any, seed: int) -> Params:
    """Draws parameters, a nested dict."""
    # Two clips, so that the alignment takes part.
    frames = model.window or 2 * model.time_multiple
    size = math.ceil(32 / model.size_multiple) * model.size_multiple
    video = jnp.zeros((1, frames, size, size, model.in_channels))
    # This generator compiles in a third of the time of the default one.
    return model.init(jax.random.key(seed, impl="unsafe_rbg"), video)["params"]


def _write_config(workdir: Path, config: Config) -> None:
    """Leaves the config in `workdir`, which all hosts must see."""
    if parallel.is_first_host():
        checkpoint.write_config(workdir, config.to_dict())
    parallel.wait_for_hosts("config written")
    if not (workdir / checkpoint.CONFIG).is_file():
        raise UserError(
            f"{workdir} does not show what host 0 has written there. Pass a --workdir that all "
            "hosts share, such as a network disk."
        )


@contextmanager
def _stop_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a request to stop; a second Ctrl-C interrupts at once."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return

    def handle(number: int, frame: Any) -> None:
        if stop and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        stop.signal = signal.Signals(number).name

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(current: TrainState, model: str, config: Config, workdir: Path) -> str:
    """Says what is about to run."""
    count = sum(x.size for x in jax.tree.leaves(current.params))
    flow = sum(x.size for x in jax.tree.leaves(current.params.get(optim.FLOW_KEY, {})))
    start = int(current.step)
    verb = f"resuming at step {start}" if start else "starting"
    return (
        f"{verb} of {config.steps}: {model}, {count - flow:,} parameters and {flow:,} of SpyNet, "
        f"batch {config.batch_size} on {jax.device_count()} {jax.devices()[0].platform} "
        f"device(s); everything goes to {workdir}"
    )
