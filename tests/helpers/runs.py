"""Whole training runs of the stand-in network, and what they leave on disk."""

import json
from pathlib import Path

from helpers import standin

from rvrt_jax.training import checkpoint, state
from rvrt_jax.training import loop as training

STEPS = standin.config().steps


def run(workdir: Path, **changes) -> bool:
    """Trains the stand-in network in `workdir`; `changes` are values of its config."""
    with standin.installed():
        return training.run(standin.config(**changes), workdir)


def final(workdir: Path, **changes):
    """Returns the state in the last checkpoint of a finished run."""
    with standin.installed(), checkpoint.Checkpoints(workdir) as checkpoints:
        config = standin.config(**changes)
        recipe = training.read(config)
        result = checkpoints.restore(state.abstract(recipe.settings, recipe.model))
        assert result is not None and checkpoints.latest() == config.steps == int(result.step)
        return result


def log_lines(workdir: Path) -> list[dict]:
    """Returns the lines of the run's log."""
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
