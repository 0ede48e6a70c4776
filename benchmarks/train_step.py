"""The training step: steps per second, compile seconds, memory.

    python benchmarks/train_step.py                  # rvrt_tiny, and small clips of the others
    python benchmarks/train_step.py --grow           # with more frames, larger crops, more channels
    python benchmarks/train_step.py --devices 1 2 4  # what sharing a batch costs
    python benchmarks/train_step.py --beside ../before  # against a checkout of another version

Each case runs in a process of its own, on one batch of made-up numbers: what is measured is the
step as train.py compiles it, with loss, gradient and Adam, without the input. Virtual devices
(--devices on a CPU) share its cores: that case shows the overhead of sharing out and averaging,
and no speed-up. With --beside rvrt_sr's step on 4 frames of 64x64 is measured in turns, by this
version and by the other one's own benchmark: a machine's speed changes, so that only numbers of a
row compare. temporary_MiB is what the program takes beside state and batch, on each device; the
peak is the device's on an accelerator, on a CPU the process's, compiler included.
"""

import argparse
import functools
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import measure
import numpy as np

from rvrt_jax import parallel
from rvrt_jax.training import loop as training
from rvrt_jax.training import optim, state, step

ROOT = Path(__file__).parents[1]
CASES = [
    {"recipe": "rvrt_tiny", "frames": 4, "crop": 64, "batch": 2},  # as it was trained
    {"recipe": "rvrt_sr", "frames": 6, "crop": 128, "batch": 1},
    {"recipe": "edvr_m:a", "frames": 5, "crop": 128, "batch": 1},
    {"recipe": "basicvsr", "frames": 6, "crop": 128, "batch": 1},
]
BESIDE = {"recipe": "rvrt_sr", "frames": 4, "crop": 256, "batch": 1, "remat": True}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the training step.")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--grow", action="store_true", help="frames, crop and width, in turns")
    parser.add_argument("--devices", type=int, nargs="+", help="share one batch over as many")
    parser.add_argument("--beside", type=Path, help="a checkout of another version")
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure_one(**args.case)))
        return
    if args.beside:
        rows = []
        for _ in range(ROUNDS):
            rows.append(beside(args.beside, repeats=args.repeats))
            measure.print_table(rows[-1:])
            measure.write("train_beside", {"case": BESIDE, "rows": rows}, args.results)
        return
    cases, name = chosen(grow=args.grow, devices=args.devices)
    rows = []
    for case in cases:
        rows.append(one_process(case | {"repeats": args.repeats}))
        measure.print_table(rows[-1:])
    gflops = measure.matmul_gflops()
    measure.print_table(rows)
    print(f"float32 matrix products: {gflops:.0f} GFLOP/s")
    measure.write(name, {"rows": rows, "matmul_gflops": gflops}, args.results)


def chosen(*, grow: bool, devices: list[int] | None) -> tuple[list[dict[str, Any]], str]:
    """Returns the cases to measure and the name of their results."""
    if devices:
        tiny = CASES[0] | {"batch": max(devices)}
        return [tiny | {"devices": count} for count in devices], "train_devices"
    if grow:
        base = CASES[0] | {"batch": 1, "remat": True}
        changes = [{}, {"frames": 16}, {"crop": 128}, {"width": 64}]
        return [base | change for change in changes], "train_growth"
    modes = [
        {"remat": remat, "dtype": dtype}
        for dtype in ("float32", "bfloat16")
        for remat in (False, True)
    ]
    return [case | mode for case in CASES for mode in modes], "train_step"


def beside(checkout: Path, *, repeats: int) -> dict[str, Any]:
    """Returns a row with this version's step and another one's, one after the other."""
    now, other = (version(folder, BESIDE | {"repeats": repeats}) for folder in (ROOT, checkout))
    row = {"s_a_step": 1 / now["steps_per_s"], "other_s_a_step": 1 / other["steps_per_s"]}
    row["ratio"] = row["s_a_step"] / row["other_s_a_step"]
    for key in ("compile_s", "temporary_MiB", "peak_MiB"):
        row |= {key: now[key], f"other_{key}": other[key]}
    return row


def version(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Measures a case with a checkout's own benchmark and package."""
    with mock.patch.dict(os.environ, {"PYTHONPATH": str(folder.absolute())}):
        return measure.in_subprocess(str(folder / "benchmarks/train_step.py"), case)


def one_process(case: dict[str, Any]) -> dict[str, Any]:
    """Measures a case in a process that sees its number of virtual CPU devices."""
    case = dict(case)
    devices = {"JAX_NUM_CPU_DEVICES": str(case.pop("devices", 1))}
    with mock.patch.dict(os.environ, devices):
        return measure.in_subprocess(__file__, case)


def measure_one(
    recipe: str,
    frames: int,
    crop: int,
    batch: int,
    repeats: int,
    remat: bool = True,
    dtype: str = "float32",
    width: int | None = None,
) -> dict[str, Any]:
    """Returns the row of one case, measured in this process.

    frames, crop: of the ground truth. width: channels of the network, in place of the recipe's.
    """
    config = read(recipe)
    config.batch_size = batch
    config.model.remat, config.model.dtype = remat, dtype
    if width is not None:
        config.model.embed_dims = (width,) * 3
    train, made, scale = prepare(config)
    rng = np.random.default_rng(0)
    low = (batch, frames, crop // scale, crop // scale, 3)
    shapes = {"lq": low, "gt": (batch, frames, crop, crop, 3)}
    whole = {key: rng.integers(0, 256, shape, np.uint8) for key, shape in shapes.items()}
    split = parallel.split(whole)
    start = time.perf_counter()
    program = train.lower(made, split).compile()
    compiling = time.perf_counter() - start
    before = measure.peak_bytes()
    taken = measure.seconds(functools.partial(program, made, split), repeats=repeats)
    stats = jax.local_devices()[0].memory_stats()
    peak = stats["peak_bytes_in_use"] if stats else measure.peak_bytes()
    return {
        "recipe": recipe,
        "channels": config.model.get("embed_dims", (config.model.get("num_feat"),))[0],
        "frames": frames,
        "crop": crop,
        "batch": batch,
        "devices": jax.device_count(),
        "dtype": dtype,
        "remat": remat,
        "steps_per_s": 1 / taken,
        "compile_s": compiling,
        "temporary_MiB": measure.temporary_bytes(program) / measure.MIB,
        "peak_MiB": peak / measure.MIB,
        "peak_before_MiB": before / measure.MIB,
    }


def prepare(config: Any) -> tuple[Any, Any, int]:
    """Returns the step, a state of made-up numbers, and the scale."""
    rng = np.random.default_rng(0)
    recipe = training.read(config)
    settings, model = recipe.settings, recipe.model

    def made_up(x: jax.ShapeDtypeStruct) -> np.ndarray:
        """Small and not negative, as second moments are; drawing real ones compiles for long."""
        return (0.02 * rng.random(x.shape)).astype(x.dtype)

    made = jax.tree.map(made_up, state.abstract(settings, model))
    made = jax.device_put(made, parallel.replicated())
    groups = optim.learning_groups(settings, model.parameter_groups())
    return step.programs(settings, model, groups)(frozenset()), made, model.scale


def read(recipe: str) -> Any:
    """Returns the config of a recipe, NAME or NAME:ARGUMENT."""
    sys.path.insert(0, str(ROOT))
    name, *argument = recipe.split(":")
    return importlib.import_module(f"configs.{name}").get_config(*argument)


if __name__ == "__main__":
    main()
