"""How a run trains: the options of a recipe beside its network and its data, read once."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import ParameterGroup

# Options that only networks with a group of parameters of that name have.
GROUP_OPTIONS = {
    "flow": ("flow_freeze_steps", "flow_lr_multiplier"),
    "fusion": ("tsa_only_steps",),
    "dcn": ("dcn_lr_multiplier",),
}
REDUCTIONS = ("mean", "sum")
_POSITIVE = ("batch_size", "batch_scale", "accumulate", "steps")
_POSITIVE += ("log_every", "eval_every", "save_every")
# What is counted in steps.
_STEPS = ("steps", "warmup_steps", "flow_freeze_steps", "tsa_only_steps")
_STEPS += ("log_every", "eval_every", "save_every")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The optimisation of a run, and how often it reports and saves.

    The defaults are those of the published RVRT recipes.
    """

    seed: int = 0  # of new parameters and of the samples
    init_from: str | None = None  # weights to start from: a file, a run's folder or a known name
    init_partial: bool = False  # takes what fits of init_from instead of insisting on all
    identity_start: bool = False  # an RVRT with upscale 1 starts as `training.identity` says
    batch_size: int = 8  # clips over all devices and hosts
    batch_scale: int = 1  # so many times batch_size, with steps and rate to match: see `scaled`
    accumulate: int = 1  # parts in which a device takes its share of the batch
    steps: int = 600_000
    lr: float = 4e-4  # the peak of the learning rate
    lr_floor: float = 1e-7  # the rate at the end
    warmup_steps: int = 0  # of a linear climb to the peak, at the start
    lr_periods: tuple[int, ...] = ()  # steps between restarts of the cosine; one cosine if empty
    lr_weights: tuple[float, ...] = ()  # the peaks of these periods, as fractions of lr
    flow_freeze_steps: int = 30_000  # the flow network keeps its weights that long ...
    flow_lr_multiplier: float = 0.25  # ... and then learns at this fraction of the rate
    tsa_only_steps: int = 0  # only EDVR's fusion learns that long
    dcn_lr_multiplier: float = 1.0  # of EDVR's deformable convolutions and their offsets
    loss_eps: float = 1e-9  # added to the squares of the Charbonnier loss
    loss_reduction: str = "mean"  # of the loss over a clip: mean or sum
    # Of the loss of frequencies beside that of pixels, 0: none, as published; 0.02 is VSRM's.
    frequency_weight: float = 0.0
    # Frames at a clip's end whose loss and gradient are taken, the others being run forward only,
    # so that clips can be long; 0: all, as published. Of recurrent networks.
    backward_frames: int = 0
    clip_norm: float = 0.0  # limit of the gradient's norm; 0: none
    ema_decay: float = 0.0  # of the running average of the weights; 0: none is kept
    max_skipped: int = 10  # non-finite steps in a row that end the run
    log_every: int = 200
    wandb_project: str = ""  # of Weights & Biases, which gets what TensorBoard gets; "": none
    eval_every: int = 5_000
    save_every: int = 5_000
    save_every_minutes: float = 15.0  # since the last checkpoint, whatever its step; 0: never

    @classmethod
    def read(cls, options: Mapping[str, Any], groups: Sequence[ParameterGroup]) -> "Settings":
        """Checks a recipe's options and returns the settings.

        groups: of the network. Raises UserError for an unknown option, one that the network has no
        use for, one that another makes useless, or a value out of range.
        """
        unused = _unused(groups)
        for key in options:
            if key in unused:
                raise UserError(
                    f"config.{key} has no effect: the network has no parameters of the group "
                    f"{unused[key]!r}. Remove it from the recipe."
                )
        known = [key for key in names() if key not in unused]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise UserError(f"the config has no option {', '.join(unknown)}; there are {known}.")
        lists = {k: tuple(options[k]) for k in ("lr_periods", "lr_weights") if k in options}
        settings = cls(**{**options, **lists})
        settings._check_ranges()
        settings._check_schedule()
        settings._check_start()
        return settings

    def options(self, groups: Sequence[ParameterGroup]) -> dict[str, Any]:
        """Returns the settings as a recipe for a network with these groups spells them."""
        unused = _unused(groups)
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in unused}

    def scaled(self) -> "Settings":
        """Returns the settings with `batch_scale` k worked in, so that as many clips are seen.

        The batch is k times as large and the peak of the learning rate sqrt(k) times as high;
        whatever is counted in steps is divided by k, rounded up; the average forgets k steps at a
        time. The root is Adam's rule (Malladi et al., "On the SDEs and Scaling Rules for Adaptive
        Gradient Algorithms", arXiv 2205.10287); Adam's own memories and the floor of the rate stay.
        """
        k = self.batch_scale
        periods = tuple(-(-period // k) for period in self.lr_periods)
        steps = {key: -(-getattr(self, key) // k) for key in _STEPS}
        if periods:
            steps["steps"] = sum(periods)
        return dataclasses.replace(
            self,
            **steps,
            batch_size=k * self.batch_size,
            batch_scale=1,
            lr=self.lr * math.sqrt(k),
            lr_periods=periods,
            ema_decay=self.ema_decay**k,
        )

    def _check_ranges(self) -> None:
        for keys, least in (
            ((*_POSITIVE, "max_skipped"), 1),
            (("seed", "warmup_steps", "clip_norm", "ema_decay", "frequency_weight"), 0),
            (("backward_frames", "flow_freeze_steps", "flow_lr_multiplier"), 0),
            (("tsa_only_steps", "dcn_lr_multiplier"), 0),
        ):
            for key in keys:
                if getattr(self, key) < least:
                    raise UserError(
                        f"config.{key}={getattr(self, key)}; it must be at least {least}."
                    )
        if self.loss_reduction not in REDUCTIONS:
            raise UserError(
                f"config.loss_reduction={self.loss_reduction!r}; it must be one of "
                f"{list(REDUCTIONS)}."
            )

    def _check_schedule(self) -> None:
        if not 0 <= self.lr_floor <= self.lr:
            raise UserError(
                f"config.lr={self.lr} and config.lr_floor={self.lr_floor}; "
                "0 <= lr_floor <= lr is needed."
            )
        if not self.lr_periods and self.lr_weights:
            raise UserError(
                f"config.lr_weights={self.lr_weights} has no effect without config.lr_periods. "
                "Set both or neither."
            )
        if self.lr_periods and sum(self.lr_periods) != self.steps:
            raise UserError(
                f"config.steps={self.steps}, but the periods of the learning rate, "
                f"config.lr_periods={self.lr_periods}, take {sum(self.lr_periods)} steps. Set both."
            )

    def _check_start(self) -> None:
        if self.identity_start and self.init_from:
            raise UserError(
                f"config.identity_start would undo a part of config.init_from={self.init_from}. "
                "Set it to False, or leave init_from out."
            )
        if self.tsa_only_steps and not self.init_from:
            raise UserError(
                f"config.tsa_only_steps={self.tsa_only_steps}: all but the fusion keeps its "
                "weights so long, so these must be trained ones. Name the run or file of stage a "
                "(the recipe's header says how to train it): --config.init_from=PATH."
            )


def names() -> list[str]:
    """Returns the names of all options."""
    return [field.name for field in dataclasses.fields(Settings)]


def _unused(groups: Sequence[ParameterGroup]) -> dict[str, str]:
    """Returns the options that a network with these groups has no use for, with their group."""
    present = {group.name for group in groups}
    return {
        key: name for name, keys in GROUP_OPTIONS.items() if name not in present for key in keys
    }
