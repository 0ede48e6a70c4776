"""A training run from a recipe to weights, stopping and resuming anywhere."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np

from rvrt_jax import models, parallel
from rvrt_jax.data import pipeline
from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError, describe
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
from rvrt_jax.training.state import TrainState
from rvrt_jax.training.stop import StopRequest, stop_signals
from rvrt_jax.weights import load as loading

Config = Any  # an ml_collections.ConfigDict, whose values have no static type
# Seconds after each failed try to save a failing run: orbax's threads need a moment to end.
RESCUE_PAUSES = (1.0, 5.0, 1.0)
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
) -> bool:
    """Trains as `config` says, or continues where `workdir` stops; returns whether it is done.

    False: a signal (`stop.SIGNALS`) has stopped the run after a step, and the same call goes on
    from there. An exception leaves a checkpoint as well, if the state is good. dry_run: checks
    everything, prints what the run would take, and writes nothing. profile_steps: how many steps to
    trace. Raises UserError for what the user can mend.
    """
    workdir = Path(workdir).absolute()  # orbax insists
    with stop_signals() as stop:
        recipe = read(config)
        settings, model = recipe.settings, recipe.model
        parallel.check_batch(settings.batch_size, accumulate=settings.accumulate)
        checks.check_input(recipe.data, model)
        checks.check_backward(settings.backward_frames, recipe.data, model)
        dataset = _batches(recipe, start=0)  # raises if there is no data
        clips = pipeline.validation(recipe.data)
        if settings.init_from and not checkpoint.exists(workdir):
            loading.check_exists(settings.init_from)
        if dry_run:
            current = state.fresh(settings, model, recipe.network)
            lines = rehearsal.report(settings, model, current, iter(dataset))
            print("\n".join(lines if parallel.is_first_host() else []))
            return True
        with run_folder.locked(workdir):
            run_folder.check_shared(workdir)
            return _run_in(workdir, recipe, clips, stop, profile_steps=profile_steps)


def _run_in(
    workdir: Path,
    recipe: Recipe,
    clips: list[validation.Clip],
    stop: StopRequest,
    *,
    profile_steps: int,
) -> bool:
    """Trains in a folder that no other run has."""
    settings, model = recipe.settings, recipe.model
    changes = run_folder.config_changes(workdir, recipe.config, compute_fields=model.compute_fields)
    parallel.wait_for_hosts("config compared")  # before the first one writes its own
    with Checkpoints(workdir) as checkpoints:
        restored = None
        if checkpoints.latest() is not None:
            restored = checkpoints.restore(state.abstract(settings, model))
        current = restored
        if current is None:
            current = state.fresh(settings, model, recipe.network)
        checkpoints.check_space(current)
        start, silent = int(current.step), not parallel.is_first_host()
        with Logs(
            workdir,
            start=start,
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
            data = iter(_batches(recipe, start=start))
            started = functools.partial(run_folder.write_config, workdir, recipe.config)
            profile = Profile(workdir, 0 if silent else profile_steps)
            meter = Meter(logs, every=settings.log_every, max_skipped=settings.max_skipped)
            beside = clips, checkpoints, logs, stop, profile, started, meter
            with contextlib.closing(profile):
                return _Loop(settings, model, data, *beside, current).run()


def _batches(recipe: Recipe, *, start: int) -> grain.IterDataset:
    """Returns this host's batches from step `start` on."""
    return pipeline.train(
        recipe.data,
        seed=recipe.settings.seed,
        batch_size=recipe.settings.batch_size // jax.process_count(),
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
        start=start,
        targets=step.targets(recipe.settings, recipe.model),
    )


@dataclass
class _Loop:
    """The steps of a run, with what they read and write."""

    settings: Settings
    model: Network
    data: Iterator[dict[str, np.ndarray]]
    clips: list[validation.Clip]
    checkpoints: Checkpoints
    logs: Logs
    stop: StopRequest
    profile: Profile
    started: Callable[[], None]  # is called when the first step is done
    meter: Meter
    current: TrainState

    def run(self) -> bool:
        """Trains until all steps are done; returns False if a stop was requested before."""
        try:
            done = self._train()
        except Exception:
            self._rescue()
            raise
        return self._farewell(done)

    def _train(self) -> int:
        """Takes the steps; returns how many are done, of which a checkpoint tells."""
        settings = self.settings
        groups = optim.learning_groups(settings, self.model.parameter_groups())
        train = ahead.Programs(step.programs(settings, self.model, groups))
        meter = self.meter
        start = done = int(self.current.step)
        saved = time.monotonic()
        compiled: frozenset[str] | None = None
        if self._validates_at(done) and done and not self.checkpoints.is_scored(done):
            self._validate(done)  # which a stop has kept from its end
        # Hosts stop together: at the step whose values tell all of them that one was asked to.
        while done < settings.steps and not (meter.stop if jax.process_count() > 1 else self.stop):
            batch = self._next_batch(done)
            if batch is None:
                break
            frozen = optim.frozen_at(groups, done)
            self.profile.before_step()
            with self.logs.untimed(when=frozen != compiled):  # the call that compiles
                before, program = self.current, train(frozen)
                self.current, values = program(before, batch)
                if frozen != compiled:
                    self.logs.flops = jax.device_count() * flops.count(program, before, batch)
                del before
            compiled = frozen
            thawed = optim.frozen_next(groups, done, settings.steps)
            if thawed is not None:
                train.prepare(thawed, self.current, batch)
            done += 1
            meter.push(done, values)
            if done == start + 1:
                meter.drain()
                self.started()
            late = time.monotonic() - saved > 60 * settings.save_every_minutes > 0
            if late or done % settings.save_every == 0 or self._validates_at(done):
                meter.drain()
                self.checkpoints.save(done, self.current)
                if self._validates_at(done):
                    self._validate(done)
                saved = time.monotonic()
        meter.drain()
        self._save(done)
        return done

    def _validates_at(self, done: int) -> bool:
        """Tells whether there is a validation after so many steps."""
        last = done == self.settings.steps
        return bool(self.clips) and (last or done % self.settings.eval_every == 0)

    def _rescue(self) -> None:
        """Saves the state before an exception ends the run; what fails here hides no exception.

        Of several hosts none can do that alone.
        """
        if jax.process_count() > 1:
            return
        for left, pause in reversed(list(enumerate(reversed(RESCUE_PAUSES)))):
            try:
                self.meter.drain()
                done = int(self.current.step)
                if done and int(self.current.skipped_in_row) < self.settings.max_skipped:
                    self._save(done)
                    self.checkpoints.wait()
                    self.logs.message(f"an error ends the run; step {done} is saved.")
                return
            except Exception as error:
                if not left:
                    said = describe(error)
                    self.logs.message(f"the last steps could not be saved ({said}).")
                time.sleep(pause)

    def _save(self, done: int) -> None:
        """Saves the state unless it is saved already."""
        if done != (self.checkpoints.latest() or 0):
            self.checkpoints.save(done, self.current)

    def _next_batch(self, done: int) -> dict[str, np.ndarray] | None:
        """Returns a batch for all devices; None if a stop signal has reached the workers too."""
        try:
            with self.logs.waiting():
                batch = next(self.data)
            return parallel.split(batch, stop=bool(self.stop))
        except RuntimeError as error:  # a worker has ended
            if self.stop and jax.process_count() == 1:
                return None
            raise UserError(
                f"the input has failed after step {done}: {describe(error)} If a worker "
                "was killed, the memory may have run out: lower config.data.num_workers. The same "
                "command goes on."
            ) from error

    def _validate(self, done: int) -> None:
        """Scores the weights, and adds the scores to the checkpoint of the step.

        Leaves out both if a stop comes meanwhile, for there is no time then; the resumed run makes
        up for it.
        """
        alone = jax.process_count() == 1  # several hosts have to agree, which takes a step
        with self.logs.untimed():
            result = validation.score(
                self.model,
                self.current.weights,
                self.clips,
                stop=lambda: alone and bool(self.stop),
            )
        if result is None:
            return
        mean = validation.mean(result.scores)
        self.checkpoints.add_scores(done, mean)
        self.logs.scores(done, mean, result.scores, tag="validation")
        if result.picture is not None:
            self.logs.picture(done, result.picture, tag="validation")

    def _farewell(self, done: int) -> bool:
        """Says how the run ended, once the last checkpoint is written; True if it is done."""
        best = self.checkpoints.best()
        if best is not None:
            self.logs.message(f"best so far: step {best[0]}, PSNR {best[1]:.3f} dB")
        due = self._validates_at(done) and not self.checkpoints.is_scored(done)
        if done < self.settings.steps or due:
            asked = self.stop.signal or "another host"
            self.logs.message(
                f"stopped by {asked} after step {done} of {self.settings.steps}; the same "
                f"command goes on from step {self.checkpoints.latest() or 0}."
            )
            return False
        self.logs.message(f"done: {done} steps.")
        return True


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
