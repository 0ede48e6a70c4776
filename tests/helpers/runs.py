"""Whole training runs of the stand-in network, and what they leave on disk."""

import json
from pathlib import Path

import jax
import numpy as np
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


def saved_steps(workdir: Path) -> set[int]:
    """Returns the steps of the run's complete checkpoints."""
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return {int(name) for name in names if name.isdigit()}


def ends_like(straight: Path, workdir: Path, **changes) -> None:
    """Finishes a run, which must have the bits and the log of the straight one."""
    assert run(workdir, **changes)
    jax.tree.map(np.testing.assert_array_equal, final(workdir), final(straight))
    ours, theirs = (
        [
            (line["step"], line.get("loss"), line.get("validation"))
            for line in log_lines(folder)
            if "loss" in line or "validation" in line
        ]
        for folder in (workdir, straight)
    )
    assert ours == theirs
    assert not list((workdir / "checkpoints").glob("*tmp*"))
