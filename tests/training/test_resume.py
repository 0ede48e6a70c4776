"""Runs that are killed end as one that was never stopped."""

import importlib
import signal
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from helpers import standin
from helpers.runs import final, log_lines, run

from rvrt_jax.training import loop as training
from rvrt_jax.weights import runs

STEPS = standin.config().steps
CACHE = "JAX_COMPILATION_CACHE_DIR"
TIMEOUT = 600  # generous: other work may share the machine


pytestmark = pytest.mark.usefixtures("program_cache")


def _exit_codes(started) -> list[int | None]:
    for process in started:
        process.start()
    for process in started:
        process.join(TIMEOUT)
    return [process.exitcode for process in started]


KILL_POINTS = (
    "step 1",  # before the first checkpoint
    "step 2",
    "os.mkdir 3.orbax-checkpoint-tmp",  # a checkpoint begins
    "step 4",
    "step 5",
    "open 6.orbax-checkpoint-tmp/rest.*/_METADATA",  # half of it is written
    "step 7",
    "step 8",
    "os.rename 9.orbax-checkpoint-tmp/params.*",
    "step 10",
    "step 11",
    "os.rename 12.orbax-checkpoint-tmp",  # all but its name, after the last step
)


@pytest.mark.parametrize("where", KILL_POINTS)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, straight, program_cache, processes, where):
    values = standin.config().to_dict()
    process = processes(
        target=standin.run_and_die,
        args=(str(tmp_path), values, program_cache[CACHE], where),
    )
    assert _exit_codes([process]) == [-signal.SIGKILL]
    half_written = [p.name for p in (tmp_path / "checkpoints").glob("*.orbax-checkpoint-tmp")]
    if "step" not in where:
        assert half_written == [where.split()[1].split("/")[0]] or "mkdir" in where
    run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path), final(straight))
    steps = [line["step"] for line in log_lines(tmp_path) if "loss" in line]
    assert steps == list(range(1, STEPS + 1))
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


def test_a_killed_fine_tuning_on_a_folder_of_images_ends_with_the_same_bits(
    tmp_path, program_cache, processes, monkeypatch
):
    """The recipe for one's own clips, through the real input pipeline, with a small network."""
    rng = np.random.default_rng(0)
    for clip in ("garden", "street"):
        for i in range(5):
            (tmp_path / "clips" / clip).mkdir(parents=True, exist_ok=True)
            frame = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            assert cv2.imwrite(str(tmp_path / "clips" / clip / f"{i}.png"), frame)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    config = importlib.import_module("configs.rvrt_finetune").get_config()
    with config.unlocked():
        config.model = {"name": "standin", "width": 8}
    config.update({"init_from": None, "batch_size": 2, "steps": 6, "log_every": 1})
    config.update({"eval_every": 4, "save_every": 2})
    own = {"root": str(tmp_path / "clips"), "num_frames": 3, "gt_size": 32, "num_workers": 0}
    own |= {"validation_dataset": "own", "validation_root": own["root"], "validation_clips": 1}
    config.data.update(own | {"validation_size": 32, "prefetch": 4})

    values = config.to_dict()
    arguments = (
        str(tmp_path / "killed"),
        values,
        program_cache[CACHE],
        "step 5",
        False,
    )
    assert _exit_codes([processes(target=standin.run_and_die, args=arguments)]) == [-signal.SIGKILL]
    assert (tmp_path / "killed" / "checkpoints" / "2").is_dir()  # that of step 4 may be unfinished
    with standin.installed(data=False):
        for name in ("killed", "straight"):
            training.run(config, tmp_path / name)
    killed, straight = (
        runs.read(tmp_path / name / "checkpoints", 6) for name in ("killed", "straight")
    )
    assert killed.keys() == straight.keys() and len(killed) == 6
    for path, leaf in killed.items():
        np.testing.assert_array_equal(leaf, straight[path])
    losses = [
        [line["loss"] for line in log_lines(tmp_path / name) if "loss" in line]
        for name in ("killed", "straight")
    ]
    assert losses[0] == losses[1] and len(set(losses[0])) == 6
