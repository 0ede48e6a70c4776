"""What the benchmarks share: timing, the machine's own speed, memory, tables and results files.

Figures of one run belong together: machines and their neighbours differ, so every benchmark
measures the machine's arithmetic or copying speed beside what it is about.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rvrt_jax.files import write_text
from rvrt_jax.models.contract import traced_for

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


def seconds(call: Callable[[], Any], *, repeats: int) -> float:
    """Returns the median time of `call`, whose result is waited for, after one call to warm up.

    With repeats = 0 it is the time of the first call.
    """
    if repeats:
        jax.block_until_ready(call())
    times = []
    for _ in range(max(1, repeats)):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compile_seconds(function: Callable, *args) -> tuple[Any, float]:
    """Returns the program for the device here, as commands have it, and the time that took."""
    start = time.perf_counter()
    with traced_for(jax.devices()[0]):
        program = jax.jit(function).lower(*args).compile()
    return program, time.perf_counter() - start


def temporary_bytes(program) -> int:
    """Returns what a compiled program allocates beside its arguments and results."""
    return program.memory_analysis().temp_size_in_bytes


def matmul_gflops(size: int = 2048) -> float:
    """Returns the machine's speed in float32 matrix products."""
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="float32"))
    return 2 * size**3 / seconds(lambda: product(x), repeats=5) / 1e9


def copy_bandwidth(mib: int = 64, passes: int = 16) -> float:
    """Returns the bytes per second that a pass over a large array reads (it writes as many).

    Several passes in one program, because the first touch of fresh memory costs more than reading.
    """
    x = jnp.ones(mib * MIB // 4, jnp.float32)
    copy = jax.jit(lambda x: jax.lax.fori_loop(0, passes, lambda _, x: x + 1, x))
    return passes * x.nbytes / seconds(lambda: copy(x), repeats=7)


def peak_bytes() -> int:
    """Returns this process's largest resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_subprocess(script: str, case: dict[str, Any]) -> dict[str, Any]:
    """Runs `script --case JSON` on its own, so that its peak memory is its own.

    Returns the JSON object on its last line of output. Raises CalledProcessError if it fails.
    """
    command = [sys.executable, script, "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """Returns what the figures depend on."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} {device.device_kind}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor": platform.machine(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows that share their keys, numbers to four digits."""
    text = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    for row in text:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e3 else f"{value}"


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> None:
    """Writes a result beside the machine it was measured on to `folder`/`name`.json."""
    path = folder / f"{name}.json"
    write_text(path, json.dumps({"machine": machine(), **result}, indent=2) + "\n")
    print(f"wrote {path}")
