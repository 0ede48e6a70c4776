"""Trains a model: `python train.py --config configs/rvrt_tiny.py [--config.lr=1e-3] …`.

Stop it with Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 and start the same command again: it goes on where
it was. Exit codes: 0 when all steps are done, 75 after such a stop, 1 after an error, which is
printed; a second signal ends the program at once, with 128 + its number (Ctrl-C: 130). How to train
on several hosts, and what to do when something goes wrong, is in docs/pods.md.
"""

import os
import sys
import traceback
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from rvrt_jax import command_line
from rvrt_jax.errors import INTERRUPTED, STOPPED, exit_code

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, a file in configs/; any value can be set: --config.lr=1e-3.",
    lock_config=True,
)  # fmt: skip
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; runs/<name of the config> by default. Hosts share it."
)
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "Join the other hosts of a TPU pod or cluster; start it on every host."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "With --multihost on a plain cluster: HOST:PORT of process 0."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --coordinator: how many processes there are."
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --coordinator: the number of this process, from 0."
)

DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Checks everything, compiles, takes a few steps from where the run in the "
    "folder is, says memory, samples/s and the time to the end; writes nothing.",
)  # fmt: skip
PROFILE = flags.DEFINE_integer(
    "profile", 0, "Traces so many steps into the run's folder, for TensorBoard or ui.perfetto.dev."
)
MATMUL_PRECISION = flags.DEFINE_enum(
    "matmul_precision", None, ["float32", "tf32"],
    "Of float32 products; tf32 is faster on GPUs and TPUs, and less exact. Default: float32.",
)  # fmt: skip

DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "On GPUs: gradients are summed in one order, by sorting, so that a run "
    "repeats bit for bit; slower. CPUs do so anyway.",
)  # fmt: skip
COMPILE_CACHE = flags.DEFINE_string("compile_cache", None, command_line.COMPILE_CACHE)


def main(argv: list[str]) -> int:
    command_line.check_rest(argv)
    done: list[bool] = []
    try:
        code = exit_code(lambda: done.append(_train())) or (0 if done[0] else STOPPED)
    except Exception:
        if not MULTIHOST.value:
            raise
        traceback.print_exc()
        code = 1
    if MULTIHOST.value:
        from rvrt_jax.training import hosts

        hosts.leave(code)
    if code == INTERRUPTED:  # at once: without waiting for threads that write
        sys.stderr.flush()
        os._exit(code)
    return code


def _train() -> bool:
    """Trains; returns whether all steps are done."""
    if DETERMINISTIC.value:
        command_line.add_in_one_order()
    # Imported here so that --help and a wrong flag answer at once.
    from rvrt_jax import parallel
    from rvrt_jax.errors import UserError
    from rvrt_jax.training import loop as training

    parallel.search_less_on_tpus()
    command_line.keep_programs(COMPILE_CACHE.value)
    if MATMUL_PRECISION.value:
        parallel.choose_matmul_precision(MATMUL_PRECISION.value)
    cluster = {
        "coordinator": COORDINATOR.value,
        "num_processes": NUM_PROCESSES.value,
        "process_id": PROCESS_ID.value,
    }
    if MULTIHOST.value:
        parallel.join_hosts(**cluster)
    elif any(value is not None for value in cluster.values()):
        raise UserError("--coordinator, --num_processes and --process_id go with --multihost.")
    workdir = Path(WORKDIR.value or Path("runs") / command_line.config_name())
    return training.run(
        CONFIG.value,
        workdir,
        dry_run=DRY_RUN.value,
        profile_steps=PROFILE.value,
        own_process=True,
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=command_line.parse_flags)
