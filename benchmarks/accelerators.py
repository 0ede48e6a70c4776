"""Compiles networks for an accelerator that is not there, and says what the programs would cost.

    python benchmarks/accelerators.py --platform cuda
    python benchmarks/accelerators.py --platform tpu --topology v4:2x2x1 --models rvrt_sr edvr_m

It needs the platform's compiler, `pip install "jax[cuda13]"` or `"jax[tpu]"` of the same version as
jax, and runs nothing: memory is the compiler's own analysis, the rest is counted over the optimised
program, whose loops count as often as they run.

hbm_GiB: all that is in a device's memory at once: arguments, results, and temporaries.
launches: operations that are a kernel (or a library call) of their own.
gigabytes: what they read and write, each operand and result counted whole. For a gather that is an
upper bound, elsewhere a good estimate of the traffic.
megacycles: what TPUs' compiler itself estimates, of one core of a chip; of Pallas kernels nothing.
loops_counted_once: how many loops do not say how often they run; there should be none.
ms_by_traffic, ms_by_arithmetic: what these bytes, and the products' operations, take at `RATES`.

TPUs' compiler is told to search less, as commands tell it; LIBTPU_INIT_ARGS says what else it is to
do, with --xla_jf_convolution_performance_target=1 to search for the best.
JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 before the command has it do less of all: it is done in a third
of the time, with a slower program. The JSON file has both ("libtpu_init_args", "effort").

A program that does not compile gets a row with the reason; the exit code is then 1.
"""

import argparse
import collections
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from rvrt_jax import parallel
from rvrt_jax.models import VARIANTS, build
from rvrt_jax.models.contract import in_channels
from rvrt_jax.ops import platforms
from rvrt_jax.training import flops

EXTRAS = {"cuda": "cuda13", "tpu": "tpu"}
H100 = Path(__file__).with_name("h100_sxm.txtpb")
BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2}
BYTES |= {"s16": 2, "u16": 2, "s8": 1, "u8": 1, "pred": 1}
# Bytes a second, operations a second in bfloat16 and in float32: the makers' figures, of an H100's
# 990 in bfloat16 what is realistic. TPUs take six passes of bfloat16 for float32.
RATES = {
    "NVIDIA H100": (3.35e12, 600e12, 67e12),
    "TPU v4": (1.2e12, 275e12, 275e12 / 6),
    "TPU v5 lite": (0.82e12, 197e12, 197e12 / 6),
    "TPU v5": (2.77e12, 459e12, 459e12 / 6),
}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(?.*?\)?) ([\w\-]+)\((.*)")
COMPUTATION = re.compile(
    r"^(?:ENTRY )?%?([\w.\-]+) \([^\n]*\) -> [^\n]*\{\n(.*?)^\}", re.DOTALL | re.MULTILINE
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Costs of programs for absent accelerators.")
    parser.add_argument("--platform", choices=["cuda", "tpu"], required=True)
    parser.add_argument("--topology", default="v5e:2x2", help="of TPUs: v5e:2x4, v4:2x2x1, ...")
    parser.add_argument("--models", nargs="+", default=list(VARIANTS))
    parser.add_argument("--modes", nargs="+", default=["forward", "train"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--frames", type=int, default=4, help="where the network has no window")
    parser.add_argument("--size", type=int, nargs=2, default=[64, 64], metavar=("H", "W"))
    parser.add_argument("--results", type=Path, help="folder for the JSON file")
    args = parser.parse_args()

    import measure

    parallel.search_less_on_tpus()  # as commands do
    try:
        devices = topology(args.platform, args.topology)
    except (NotImplementedError, RuntimeError) as error:
        sys.exit(
            f"there is no compiler for {args.platform} {args.topology}: {_line(error)}. "
            f'Run: pip install "jax[{EXTRAS[args.platform]}]=={jax.__version__}"'
        )
    result = {"device": devices[0].device_kind, "devices": len(devices), "size": args.size}
    result["effort"] = float(os.environ.get("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", 0))
    result["libtpu_init_args"] = os.environ.get("LIBTPU_INIT_ARGS", "")
    generation = args.topology.partition(":")[0] if args.platform == "tpu" else ""
    file = "_".join(filter(None, ("accelerators", args.platform, generation)))
    folder = args.results or measure.RESULTS
    rows: list[dict[str, Any]] = []
    for name in args.models:
        for mode in args.modes:
            for dtype in args.dtypes:
                row = {"model": name, "mode": mode, "dtype": dtype}
                net = network(name, mode, dtype)
                try:
                    row |= cost(net, devices, mode, args.frames, tuple(args.size))
                except jax.errors.JaxRuntimeError as error:
                    row["failed"] = _line(error)
                rows.append(row)
                print(row, flush=True)
                measure.write(file, result | {"rows": rows}, folder)  # hours of work, maybe
    columns = dict.fromkeys(key for row in rows for key in row)
    measure.print_table([{key: row.get(key, "") for key in columns} for row in rows])
    sys.exit(any("failed" in row for row in rows))


def network(name: str, mode: str, dtype: str) -> Any:
    """Returns a published size, which rematerialises for training where it can."""
    fields = {"dtype": jnp.dtype(dtype).type}
    net = build(name, **fields)
    can = mode == "train" and hasattr(net, "remat")
    return build(name, remat=True, **fields) if can else net


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def topology(platform: str, name: str) -> np.ndarray:
    """Returns the devices of an H100 or of a TPU slice; fails where the compiler is missing."""
    options = {"topology_name": name}
    if platform == "cuda":
        target = H100.read_text()
        options = {"topology_name": "", "topology": "1x1x1", "target_config": target}
    found = topologies.get_topology_desc(platform=platform, **options)
    return np.array(found.devices).reshape(-1)


def cost(
    net: Any, devices: np.ndarray, mode: str, frames: int, size: tuple[int, int]
) -> dict[str, float]:
    """Compiles a network for devices, one clip on each, and returns what its program costs."""
    frames = net.window or frames
    shape = len(devices), frames, *size, in_channels(net)
    video = jax.ShapeDtypeStruct(shape, jnp.float32)
    few = jax.ShapeDtypeStruct((1, *net.example_size(), in_channels(net)), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), few)["params"]
    arguments = [params, video]
    if mode == "train":
        large = [net.scale * n for n in size]
        out = len(devices), 1 if net.window else frames, *large, 3
        arguments.append(jax.ShapeDtypeStruct(out, jnp.float32))
    function = _train_step(net) if mode == "train" else _forward(net)
    mapped, shardings = _over_devices(function, devices, arguments, mode)
    start = time.perf_counter()
    platform = devices[0].platform.replace("gpu", "cuda")
    with platforms.known_to_be(platform):  # as train.py and restoration trace
        traced = jax.jit(mapped, in_shardings=shardings).trace(*arguments)
        lowered = traced.lower(lowering_platforms=(platform,))
    lowered_at = time.perf_counter()
    program = lowered.compile()
    compiled = time.perf_counter()
    memory, text = program.memory_analysis(), program.as_text()
    assert memory is not None and text is not None, "the compiler says nothing of its program"
    counted = count(text)
    traffic = counted["bytes"]
    sizes = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    there = sum(sizes) - memory.alias_size_in_bytes
    found = {
        "trace_s": round(lowered_at - start, 1),
        "compile_s": round(compiled - lowered_at, 1),
        "hbm_GiB": round(there / 2**30, 3),
        "temporaries_GiB": round(memory.temp_size_in_bytes / 2**30, 3),
        "launches": counted["launches"],
        "gigabytes": round(traffic / 1e9, 2),
    }
    if counted["cycles"]:
        found["megacycles"] = round(counted["cycles"] / 1e6, 1)
    if counted["loops of unknown length"]:
        found["loops_counted_once"] = counted["loops of unknown length"]
    rates = [rate for kind, rate in RATES.items() if devices[0].device_kind.startswith(kind)]
    if rates:
        bytes_per_second, half, single = rates[0]
        speed = half if net.dtype == jnp.bfloat16 else single
        found["ms_by_traffic"] = round(1e3 * traffic / bytes_per_second, 2)
        found["ms_by_arithmetic"] = round(1e3 * flops.count(mapped, *arguments) / speed, 2)
    return found


def _forward(net: Any) -> Callable:
    return lambda params, video: net.apply({"params": params}, video)


def _train_step(net: Any) -> Callable:
    """A step of plain gradient descent on the Charbonnier loss."""

    def step(params: Any, video: jax.Array, truth: jax.Array) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> jax.Array:
            return jnp.mean(jnp.sqrt((_forward(net)(params, video) - truth) ** 2 + 1e-9))

        value, gradient = jax.lax.pmean(jax.value_and_grad(loss)(params), "d")
        return value, jax.tree.map(lambda p, g: p - 1e-4 * g, params, gradient)

    return step


def _over_devices(
    function: Callable, devices: np.ndarray, arguments: list, mode: str
) -> tuple[Callable, tuple[NamedSharding, ...]]:
    """Returns a function whose first argument is whole on every device, the others split."""
    mesh = jax.sharding.Mesh(devices, ("d",))
    whole, split = PartitionSpec(), PartitionSpec("d")
    specs = whole, *[split] * (len(arguments) - 1)
    out = whole if mode == "train" else split
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    return mapped, shardings


def count(text: str) -> collections.Counter:
    """Returns what an optimised program's text says of its run.

    launches; bytes, read and written; cycles, as TPUs' compiler estimates them; loops of unknown
    length, which count as if they ran once.
    """
    bodies = dict(COMPUTATION.findall(text))
    total: collections.Counter = collections.Counter()

    def walk(name: str, times: int) -> None:
        shapes = {}
        for line in bodies.get(name, "").splitlines():
            match = INSTRUCTION.match(line)
            if not match:
                continue
            own, shape, operation, rest = match.groups()
            shapes[own] = shape
            if operation in FREE:
                continue
            called = _called(operation, line)
            if called is None:
                estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
                total["cycles"] += times * int(estimate[1] if estimate else 0)
                operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
                total["launches"] += times
                sizes = map(_bytes, (shape, *(shapes.get(o, "") for o in operands)))
                total["bytes"] += times * sum(sizes)
                continue
            trips = _trips(line, bodies) if operation == "while" else 1
            total["loops of unknown length"] += trips is None
            for other in called:
                walk(other, times * (trips or 1))

    walk(re.findall(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)[0], 1)
    return total


def _trips(loop: str, bodies: dict[str, str]) -> int | None:
    """Returns how often a loop runs; None where its text does not say so.

    GPUs' compiler notes the number beside the loop. TPUs' does not: there the condition compares
    the counter, which JAX starts at 0, with a constant.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop)
    if known:
        return int(known[1])
    called = re.search(r"condition=%?([\w.\-]+)", loop)
    condition = bodies.get(called[1], "") if called else ""
    constants = dict(re.findall(r"%([\w.\-]+) = s32\[\]\S* constant\((\d+)\)", condition))
    limit = re.search(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT", condition)
    return int(constants[limit[1]]) if limit and limit[1] in constants else None


def _called(operation: str, line: str) -> Iterable[str] | None:
    """Returns the computations that an operation runs; None for one that is a kernel."""
    if operation == "while":
        return re.findall(r"body=%?([\w.\-]+)", line)
    if operation == "conditional":
        found = re.search(r"branch_computations=\{([^}]*)\}", line)
        pattern = r"(?:true|false)_computation=%?([\w.\-]+)"
        return re.findall(r"%?([\w.\-]+)", found[1]) if found else re.findall(pattern, line)
    return re.findall(r"to_apply=%?([\w.\-]+)", line) if operation == "call" else None


def _bytes(shape: str) -> int:
    """Returns the bytes of "f32[4,8]{1,0}", or of a tuple of such."""
    total = 0
    for kind, dimensions in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        total += BYTES.get(kind, 0) * int(np.prod([int(d) for d in dimensions.split(",") if d]))
    return total


if __name__ == "__main__":
    main()
