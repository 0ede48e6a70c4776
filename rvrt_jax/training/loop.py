"""A training run from a recipe to weights, stopping and resuming anywhere."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax

from rvrt_jax import parallel
from rvrt_jax.data import pipeline
from rvrt_jax.errors import describe
from rvrt_jax.models.contract import Network
from rvrt_jax.training import (
    ahead,
    checkpoint,
    checks,
    flops,
    hosts,
    manifest,
    optim,
    rehearsal,
    run_folder,
    state,
    step,
    validation,
)
from rvrt_jax.training.checkpoint import Checkpoints
from rvrt_jax.training.feed import Feed
from rvrt_jax.training.logs import Logs, Meter
from rvrt_jax.training.profile import Profile
from rvrt_jax.training.recipe import Config, Recipe, read
from rvrt_jax.training.settings import Settings
from rvrt_jax.training.state import TrainState
from rvrt_jax.training.stop import StopRequest, stop_signals
from rvrt_jax.weights import load as loading

# Seconds after each failed try to save a failing run: orbax's threads need a moment to end.
RESCUE_PAUSES = (1.0, 5.0, 1.0)


def run(
    config: Config,
    workdir: str | Path,
    *,
    dry_run: bool = False,
    profile_steps: int = 0,
    own_process: bool = False,
) -> bool:
    """Trains as `config` says, or continues where `workdir` stops; returns whether it is done.

    False: a signal (`stop.SIGNALS`) has stopped the run after a step, and the same call goes on
    from there. An exception leaves a checkpoint as well, if the state is good. dry_run: checks
    everything, prints what the run would take, and writes nothing. profile_steps: how many steps to
    trace. own_process: a second Ctrl-C ends this process at once, as other signals do, instead of
    raising KeyboardInterrupt. Raises UserError for what the user can mend. On several hosts all of
    them end like this for what one of them finds.
    """
    workdir = Path(workdir).absolute()  # orbax insists
    with (
        stop_signals(own_process=own_process) as stop,
        hosts.watching(),
        contextlib.ExitStack() as stack,
    ):
        recipe, dataset, clips = hosts.agree(lambda: _prepare(config, workdir))
        if dry_run:
            return rehearsal.rehearse(recipe, workdir, iter(dataset), stop)
        hosts.agree(lambda: stack.enter_context(run_folder.locked(workdir)))
        hosts.agree(lambda: run_folder.check_shared(workdir))
        return _run_in(workdir, recipe, clips, stop, profile_steps=profile_steps)


def _prepare(
    config: Config, workdir: Path
) -> tuple[Recipe, grain.IterDataset, list[validation.Clip]]:
    """Reads the recipe and looks at all that a run needs; raises UserError for what is missing."""
    recipe = read(config)
    settings, model = recipe.settings, recipe.model
    told = recipe.config  # what can be set; the settings have batch_scale worked in
    parallel.check_batch(
        told["batch_size"], batch_scale=told["batch_scale"], accumulate=settings.accumulate
    )
    checks.check_input(recipe.data, model)
    checks.check_backward(settings.backward_frames, recipe.data, model)
    dataset = _batches(recipe, start=0)  # raises if there is no data
    clips = pipeline.validation(recipe.data)
    if not checkpoint.exists(workdir):
        for weights in state.starts_from(settings, recipe.network):
            loading.check_exists(weights)
    return recipe, dataset, clips


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
    changes = hosts.agree(
        lambda: run_folder.config_changes(
            workdir, recipe.config, compute_fields=model.compute_fields
        )
    )
    with Checkpoints(workdir) as checkpoints:
        restored = None
        if checkpoints.latest() is not None:
            restored = checkpoints.restore(state.abstract(settings, model))
        current = restored
        if current is None:
            current = hosts.agree(lambda: state.fresh(settings, model, recipe.network))
        checkpoints.check_space(current)
        start, silent = int(current.step), not parallel.is_first_host()
        open_logs = functools.partial(Logs, workdir, start=start, steps=settings.steps)
        with hosts.agree(
            lambda: open_logs(silent=silent, wandb_project=settings.wandb_project)
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
            feed = Feed(iter(_batches(recipe, start=start)), logs, stop)
            started = functools.partial(run_folder.write_config, workdir, recipe.config)
            profile = Profile(workdir, 0 if silent else profile_steps)
            meter = Meter(logs, every=settings.log_every, max_skipped=settings.max_skipped)
            beside = clips, checkpoints, logs, stop, profile, started, meter
            with contextlib.closing(profile):
                return _Loop(settings, model, feed, *beside, current).run()


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


@dataclasses.dataclass
class _Loop:
    """The steps of a run, with what they read and write."""

    settings: Settings
    model: Network
    feed: Feed
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
        except Exception as error:
            if hosts.alone() or isinstance(error, hosts.Agreed):  # else none can save
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
        ready = done < settings.steps and self.feed.has_first(done)
        while ready and done < settings.steps and not self._leaving():
            late = time.monotonic() - saved > 60 * settings.save_every_minutes > 0
            batch = self.feed.next(done, save=late)
            if batch is None:
                break
            frozen = optim.frozen_at(groups, done)
            self.feed.note(self.profile.before_step)
            new = frozen != compiled
            with self.logs.untimed(when=new):  # the call that compiles
                get = functools.partial(train, frozen)
                # What was compiled ahead may have failed on one host alone.
                before, program = self.current, hosts.agree(get) if new else get()
                self.current, values = program(before, batch)
                if new:
                    self.feed.note(functools.partial(self._count, program, before, batch))
                del before
            compiled = frozen
            thawed = optim.frozen_next(groups, done, settings.steps)
            if thawed is not None:
                self.feed.note(functools.partial(train.prepare, thawed, self.current, batch))
            done += 1
            self.feed.note(functools.partial(meter.push, done, values))
            if done == start + 1:
                self.feed.note(meter.drain)
                self.feed.note(self.started)
            if (late if hosts.alone() else meter.save) or self._is_due(done):
                self.feed.note(meter.drain)
                if meter.drop:
                    break
                self.checkpoints.save(done, self.current)
                if self._validates_at(done):
                    self._validate(done)
                saved, meter.save = time.monotonic(), False
        self.feed.note(meter.drain)
        hosts.raise_together(self.feed.failure)
        done = int(self.current.step)  # dropped steps have left it as it was
        self._save(done)
        return done

    def _count(self, program: Callable[..., Any], *arguments: Any) -> None:
        """Lets the log know what a step computes."""
        self.logs.flops = jax.device_count() * flops.count(program, *arguments)

    def _leaving(self) -> bool:
        """Tells whether the steps end before their number: on all hosts after the same step."""
        return bool(self.stop) if hosts.alone() else self.meter.stop or self.meter.drop

    def _is_due(self, done: int) -> bool:
        """Tells whether a checkpoint is written after so many steps."""
        return done % self.settings.save_every == 0 or self._validates_at(done)

    def _validates_at(self, done: int) -> bool:
        """Tells whether there is a validation after so many steps."""
        last = done == self.settings.steps
        return bool(self.clips) and (last or done % self.settings.eval_every == 0)

    def _rescue(self) -> None:
        """Saves the state before an exception ends the run; what fails here hides no exception."""
        pauses = RESCUE_PAUSES if hosts.alone() else (0.0,)  # none can try again alone
        for left, pause in reversed(list(enumerate(reversed(pauses)))):
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
                    hosts.announce(error)
                    said = describe(error)
                    self.logs.message(f"the last steps could not be saved ({said}).")
                time.sleep(pause)

    def _save(self, done: int) -> None:
        """Saves the state unless it is saved already."""
        if done != (self.checkpoints.latest() or 0):
            self.checkpoints.save(done, self.current)

    def _validate(self, done: int) -> None:
        """Scores the weights, and adds the scores to the checkpoint of the step.

        Leaves out both if a stop comes meanwhile, for there is no time then; the resumed run makes
        up for it.
        """
        alone = hosts.alone()  # several have to agree, which takes a step
        with self.logs.untimed():
            result = validation.score(
                self.model,
                self.current.weights,
                self.clips,
                stop=lambda: alone and bool(self.stop),
            )
        if result is None:
            return
        self.checkpoints.add_scores(done, validation.mean(result.scores))
        hosts.agree(lambda: self._tell(done, result))

    def _tell(self, done: int, result: validation.Result) -> None:
        """Logs a validation."""
        mean = validation.mean(result.scores)
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
    sizes = {
        name: sum(x.size for x in jax.tree.leaves(part)) for name, part in current.params.items()
    }
    others = {"SpyNet": sizes.pop(state.FLOW, 0), "FFDNet": sizes.pop(state.IMAGE_DENOISER, 0)}
    counts = [f"{size:,} of {name}" for name, size in others.items() if size]
    parameters = " and ".join([f"{sum(sizes.values()):,} parameters", *counts])
    start = int(current.step)
    verb = f"resuming at step {start}" if start else "starting"
    return (
        f"{verb} of {settings.steps}: {type(model).__name__}, {parameters}, "
        f"batch {settings.batch_size} on {jax.device_count()} {jax.devices()[0].platform} "
        f"device(s); everything goes to {workdir}; the first step waits for its compilation"
    )
