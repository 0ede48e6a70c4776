"""A training run from a recipe to weights, stopping and resuming anywhere."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rvrt_jax import models, parallel
from rvrt_jax.data import pipeline
from rvrt_jax.data.options import DataOptions
from rvrt_jax.models.contract import Network
from rvrt_jax.training import (
    ahead,
    checkpoint,
    checks,
    flops,
    manifest,
    optim,
    rehearsal,
    run_folder,
    state,
    step,
    validation,
)
from rvrt_jax.training.checkpoint import Checkpoints
from rvrt_jax.training.logs import Logs, Meter
from rvrt_jax.training.profile import Profile
from rvrt_jax.training.settings import Settings
from rvrt_jax.training.state import Params, TrainState
from rvrt_jax.training.stop import StopRequest, stop_signals
from rvrt_jax.weights import load as loading

Config = Any  # an ml_collections.ConfigDict, whose values have no static type
EVALUATION = ("test_sets", "published")  # parts of a recipe that only eval.py reads


@dataclass(frozen=True)
class Recipe:
    """The parts of a recipe, read and checked.

    settings: with batch_scale worked in. network: name and fields of `model`, as `models.build`
    takes them. config: all of the recipe, as it is kept in the run's folder.
    """

    settings: Settings
    model: Network
    network: dict[str, Any]
    data: DataOptions
    config: dict[str, Any]


def read(config: Config) -> Recipe:
    """Takes a recipe apart; raises UserError for options that do not exist, fit or work."""
    values = config.to_dict()
    network = dict(values["model"])
    model = models.build(**network)
    options = {k: v for k, v in values.items() if k not in ("model", "data", *EVALUATION)}
    groups = model.parameter_groups()
    settings = Settings.read(options, groups)
    data = DataOptions.read(values["data"])
    return Recipe(settings.scaled(), model, network, data, values | settings.options(groups))


def run(
    config: Config, workdir: str | Path, *, dry_run: bool = False, profile_steps: int = 0
) -> None:
    """Trains as `config` says, or continues where `workdir` stops; returns when done or stopped.

    SIGTERM and Ctrl-C save a checkpoint after the current step and return; the same call goes on
    from there. dry_run: checks everything, prints what the run would take, and writes nothing.
    profile_steps: how many steps to trace. Raises UserError for what the user can mend.
    """
    workdir = Path(workdir).absolute()  # orbax insists
    recipe = read(config)
    settings, model = recipe.settings, recipe.model
    parallel.check_batch(settings.batch_size, accumulate=settings.accumulate)
    changes = run_folder.config_changes(workdir, recipe.config, compute_fields=model.compute_fields)
    parallel.wait_for_hosts("config compared")  # before any writes its own
    checks.check_input(recipe.data, model)
    checks.check_backward(settings.backward_frames, recipe.data, model)
    dataset = pipeline.train(
        recipe.data,
        seed=settings.seed,
        batch_size=settings.batch_size // jax.process_count(),
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
        targets=step.targets(settings, model),
    )
    clips = pipeline.validation(recipe.data)
    if settings.init_from and not checkpoint.exists(workdir):
        loading.check_exists(settings.init_from)
    if dry_run:
        current = state.fresh(settings, model, recipe.network)
        lines = rehearsal.report(settings, model, current, iter(dataset))
        print("\n".join(lines if parallel.is_first_host() else []))
        return
    run_folder.write_config(workdir, recipe.config)

    data = iter(dataset)
    silent = not parallel.is_first_host()
    with Checkpoints(workdir) as checkpoints, stop_signals() as stop:
        restored = None
        if checkpoints.latest() is not None:
            restored = checkpoints.restore(state.abstract(settings, model), data)
        current = restored
        if current is None:
            current = state.fresh(settings, model, recipe.network)
        checkpoints.check_space(current)
        with Logs(
            workdir,
            start=int(current.step),
            steps=settings.steps,
            silent=silent,
            wandb_project=settings.wandb_project,
        ) as logs:
            logs.message(_greeting(current, model, settings, workdir))
            logs.batch_size = settings.batch_size
            if not silent:
                manifest.append(workdir, step=int(current.step), changes=changes)
            if restored is not None and changes:
                logs.message(f"changed in the config since: {'; '.join(changes)}")
            if restored is None and clips:
                baseline = validation.bicubic(clips, scale=model.scale)
                logs.scores(0, validation.mean(baseline), baseline, tag="bicubic")
            profile = Profile(workdir, 0 if silent else profile_steps)
            with contextlib.closing(profile):
                _Loop(settings, model, data, clips, checkpoints, logs, stop, profile).run(current)


@dataclass(frozen=True)
class _Loop:
    """The steps of a run, with what they read and write beside the state."""

    settings: Settings
    model: Network
    data: Iterator[dict[str, np.ndarray]]
    clips: list[validation.Clip]
    checkpoints: Checkpoints
    logs: Logs
    stop: StopRequest
    profile: Profile

    def run(self, current: TrainState) -> None:
        """Trains until all steps are done or a stop is requested."""
        settings = self.settings
        groups = optim.learning_groups(settings, self.model.parameter_groups())
        train = ahead.Programs(step.programs(settings, self.model, groups))
        meter = Meter(self.logs, every=settings.log_every, max_skipped=settings.max_skipped)
        done = int(current.step)
        compiled: frozenset[str] | None = None
        # Hosts stop together: at the step whose values tell all of them that one was asked to.
        while done < settings.steps and not (meter.stop if jax.process_count() > 1 else self.stop):
            batch = self._next_batch()
            if batch is None:
                break
            frozen = optim.frozen_at(groups, done)
            self.profile.before_step()
            with self.logs.untimed(when=frozen != compiled):  # the call that compiles
                before, program = current, train(frozen)
                current, values = program(before, batch)
                if frozen != compiled:
                    self.logs.flops = jax.device_count() * flops.count(program, before, batch)
                del before
            compiled = frozen
            thawed = optim.frozen_next(groups, done, settings.steps)
            if thawed is not None:
                train.prepare(thawed, current, batch)
            done += 1
            meter.push(done, values)

            scores = None
            if self.clips and (done == settings.steps or done % settings.eval_every == 0):
                meter.drain()
                scores = self._validate(current.weights, done)
            if scores or done % settings.save_every == 0:
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
        if done < self.settings.steps:
            asked = self.stop.signal or "another host"
            self.logs.message(
                f"stopped by {asked} after step {done} of {self.settings.steps}; the same "
                f"command goes on from step {self.checkpoints.latest() or 0}."
            )
        else:
            self.logs.message(f"done: {done} steps.")


def _greeting(current: TrainState, model: Network, settings: Settings, workdir: Path) -> str:
    """Says what is about to run."""
    count = sum(x.size for x in jax.tree.leaves(current.params))
    flow = sum(x.size for x in jax.tree.leaves(current.params.get(state.FLOW, {})))
    parameters = f"{count - flow:,} parameters" + (f" and {flow:,} of SpyNet" if flow else "")
    start = int(current.step)
    verb = f"resuming at step {start}" if start else "starting"
    return (
        f"{verb} of {settings.steps}: {type(model).__name__}, {parameters}, "
        f"batch {settings.batch_size} on {jax.device_count()} {jax.devices()[0].platform} "
        f"device(s); everything goes to {workdir}"
    )
