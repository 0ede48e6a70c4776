"""Measures the networks on the device that is here, in ten minutes at most.

    python benchmarks/on_device.py                     # on a GPU or TPU
    python benchmarks/on_device.py --small             # a trial on a CPU: small networks and frames

It needs this checkout, jax and flax, and nothing else; no weights, no data, no network. Parts that
cannot be measured are named in one line, and the rest goes on. Written after each measurement, into
benchmarks/results or --results: on_device_PLATFORM.json, and .md with the tables for
docs/benchmarks.md. The exit code is 1 if a golden output is missed.

Memory is what the compiler says a program needs: arguments, results and temporaries. A time is the
median of three calls after a first one.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # nothing is installed; goldens lie with the tests

from benchmarks import einops_standin  # noqa: E402

STOOD_IN = einops_standin.install()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from helpers import goldens  # noqa: E402  # pyright: ignore[reportMissingImports]

from rvrt_jax import models, parallel  # noqa: E402
from rvrt_jax.models.contract import in_channels, traced_for  # noqa: E402
from rvrt_jax.weights import families  # noqa: E402
from rvrt_jax.weights import load as loading  # noqa: E402

REPEATS = 3
CLOSE = 1e-4  # of golden outputs in [0, 1]: float32 in another order; CPUs stay below 1e-5
GOLDENS = ("edvr/sr_stage2_2019", "edvr/deblur", "rvrt/sr_x4", "rvrt/deblur", "rvrt/denoise")
FORMS = {"rvrt_sr": "attention", "edvr_m": "deform_conv"}  # the field that chooses the form
PUBLISHED = {  # milliseconds a frame, from the papers; RVRT's on an A100 in float32
    "rvrt_sr": "183 (A100, RVRT's paper)",
    "edvr_l": "378 (RVRT's paper)",
}
RVRT_SMALL = {"embed_dims": (8, 8, 8), "num_blocks": (1, 1, 1), "depths": (1, 1, 1)}
RVRT_SMALL |= {"num_heads": (2, 2, 2), "deformable_groups": 2, "attention_heads": 2}
RVRT_SMALL |= {"num_feat": 8, "offset_feat": 8}
EDVR_SMALL = {"num_feat": 8, "deformable_groups": 2, "num_frame": 3, "num_extract_block": 1}
EDVR_SMALL |= {"num_reconstruct_block": 1}
SMALL: dict[str, dict[str, Any]] = {
    "rvrt_sr": RVRT_SMALL,
    "edvr_m": EDVR_SMALL,
    "edvr_l": EDVR_SMALL,
    "basicvsr": {"num_feat": 8, "num_block": 1},
}

Row = dict[str, Any]


class Report:
    """What was measured and what was not, on disk after each step."""

    def __init__(self, folder: Path, minutes: float, device: Any) -> None:
        self._start, self._limit, self._longest = time.monotonic(), 60 * minutes, 0.0
        self._path = folder / f"on_device_{device.platform}"
        self._about = {
            "device": f"{device.platform} {device.device_kind}",
            "devices": jax.device_count(),
            "jax": jax.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }
        self.parts: dict[str, list[Row]] = {}
        self.notes: list[str] = []
        self._at = "the start"
        self._writing = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)

    def note(self, line: str) -> None:
        """Says a line now and in the files."""
        print(line, flush=True)
        self.notes.append(line)

    def end_in_time(self) -> None:
        """Ends the program when its time is over, wherever it is.

        A compilation cannot be interrupted, and one may take longer than all is to take.
        """
        timer = threading.Timer(self._limit, self._end)
        timer.daemon = True
        timer.start()

    def exit_code(self) -> int:
        """Returns 1 if a golden output was missed, or none was compared."""
        rows = self.parts.get("golden outputs", [])
        return 0 if rows and all(row["close"] for row in rows) else 1

    def _end(self) -> None:
        self.note(f"{self._at}: stopped, since {self._limit:.0f} s are over; the rest is left out")
        self.write()
        os._exit(self.exit_code())

    def measure(self, part: str, name: str, call: Callable[[], Row], how: str = "") -> None:
        """Adds the row that `call` returns to a part, or a note why there is none.

        how: what tells it from the part's other rows of that name.
        """
        what = ", ".join(filter(None, (part, name, how)))
        spent = time.monotonic() - self._start
        if spent + self._longest > self._limit:
            self.note(f"{what}: left out, since {spent:.0f} of {self._limit:.0f} s are over")
            self.write()
            return
        self._at = what
        try:
            row = {"program": name, **call()}
        except Exception as error:  # whatever is missing on this machine, the rest is worth having
            reason = (str(error).splitlines() or [""])[0][:200]
            self.note(f"{what}: {type(error).__name__}: {reason}")
        else:
            print(part, row, flush=True)
            self.parts.setdefault(part, []).append(row)
        self._longest = max(self._longest, time.monotonic() - self._start - spent)
        self.write()

    def write(self) -> None:
        """Writes both files."""
        with self._writing:
            self._write()

    def _write(self) -> None:
        memory = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in memory:
            self._about["peak_GiB"] = round(memory["peak_bytes_in_use"] / 2**30, 2)
        seconds = round(time.monotonic() - self._start)
        result = {"machine": self._about, "seconds": seconds, "notes": self.notes, **self.parts}
        self._path.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
        head = ", ".join(f"{key} {value}" for key, value in self._about.items())
        text = [f"Measured by `benchmarks/on_device.py` in {seconds} s: {head}."]
        text += [f"{part.capitalize()}:\n\n{_table(rows)}" for part, rows in self.parts.items()]
        text += ["\n".join(f"- {line}" for line in self.notes)] if self.notes else []
        self._path.with_suffix(".md").write_text("\n\n".join(text) + "\n")


def _table(rows: list[Row]) -> str:
    """Returns a Markdown table; a row may lack columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[str(row.get(key, "")) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def made_up(net: Any, seed: int = 0) -> Any:
    """Returns random parameters whose features keep their size, without compiling an `init`."""
    video = jax.ShapeDtypeStruct((1, *net.example_size(), in_channels(net)), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), video)["params"]
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        if len(leaf.shape) == 1:
            return np.full(leaf.shape, "scale" in name, np.float32)
        gain = 0.5
        if len(leaf.shape) == 4 and "spynet" not in name:
            added = leaf.shape[-1] == 3 or "'conv1'" in name or "'conv2'" in name
            gain = 0.1 if added else 1.4  # to a picture, or in a residual block
        noise = rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return (gain * noise).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def waves(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a drifting pattern in [0, 1], float32 [b, t, h, w, c]."""
    b, t, h, w, c = np.ogrid[tuple(slice(n) for n in shape)]
    return (0.5 + 0.4 * np.sin(0.3 * (h - t) + b) * np.cos(0.2 * (w + 2 * t) + c)).astype(
        np.float32
    )


@dataclasses.dataclass(frozen=True)
class Timed:
    """A compiled program's result, its times in seconds and the bytes that it needs."""

    result: Any
    seconds: float
    compiling: float
    memory: int


def timed(function: Callable, *arguments: Any) -> Timed:
    """Compiles and runs a function."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    compiling = time.perf_counter() - start
    arguments = jax.device_put(arguments)
    result = jax.block_until_ready(program(*arguments))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        times.append(time.perf_counter() - start)
    return Timed(result, statistics.median(times), compiling, _memory(program))


def _memory(program: Any) -> int:
    found = program.memory_analysis()
    if found is None:
        return 0
    sizes = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(sizes)


def _costs(found: Timed) -> Row:
    compiling, memory = round(found.compiling, 1), round(found.memory / 2**30, 3)
    return {"compile s": compiling, "memory GiB": memory}


def decibels(a: Any, b: Any) -> float:
    """Returns how alike two results are, as the PSNR of pictures in [0, 1]."""
    a, b = (np.clip(np.asarray(x, np.float64), 0, 1) for x in (a, b))
    return round(float(-10 * np.log10(max(np.mean((a - b) ** 2), 1e-20))), 1)


def golden(name: str) -> Row:
    """Compares an output with the golden one, of the published network in PyTorch on a CPU."""
    family, file = name.split("/")
    if family == "rvrt":
        net, params, arrays = goldens.rvrt(file)
        expected, step = arrays["output[..., ::6, ::6]"], 6
    else:
        arrays = goldens.load(name)
        state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
        fields = families.detect(state) or {}
        net, params = loading.from_state_dict(fields.pop("name"), state, **fields)
        expected, step = arrays["output"], 1
    video = arrays["input"] if "input" in arrays else None
    if video is None:
        video = goldens.smooth_video(tuple(arrays["shape"]), int(arrays["seed"]))
    video = goldens.channels_last(video)
    output = jax.jit(lambda params, video: net.apply({"params": params}, video))(params, video)
    output = np.asarray(output)[..., ::step, ::step, :]
    error = float(np.abs(output - goldens.channels_last(expected).reshape(output.shape)).max())
    return {"largest error": f"{error:.1e}", "close": error < CLOSE}


def speed(
    name: str, fields: Row, frames: int, size: tuple[int, int], dtype: str, outputs: dict[str, Any]
) -> Row:
    """Times a network on frames of a size; `outputs` keeps the float32 result to compare with."""
    net = models.build(name, **fields, dtype=dtype)
    frames = net.window or frames
    video = waves((1, frames, *size, in_channels(net)))
    found = timed(lambda params, video: net.apply({"params": params}, video), made_up(net), video)
    row: Row = {"frames": f"{frames} of {size[1]}x{size[0]}", "dtype": dtype}
    row |= {"ms a frame": round(1e3 * found.seconds / found.result.shape[1], 2)}
    if dtype == "float32":
        outputs[name] = np.asarray(found.result)
    elif name in outputs:
        row |= {"dB against float32": decibels(found.result, outputs[name])}
    published = PUBLISHED.get(name, "") if not fields else ""
    return row | _costs(found) | {"published ms": published}


def training(name: str, fields: Row, frames: int, size: int, dtype: str) -> Row:
    """Times a step of gradient descent on one clip, with rematerialisation where there is one."""
    net = models.build(name, **fields, dtype=dtype)
    if hasattr(net, "remat"):
        net = models.build(name, **fields, dtype=dtype, remat=True)
    frames = net.window or frames
    video = waves((1, frames, size, size, in_channels(net)))
    truth = waves((1, 1 if net.window else frames, net.scale * size, net.scale * size, 3))

    def step(params: Any, video: jax.Array, truth: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            difference = net.apply({"params": params}, video) - truth
            return jnp.mean(jnp.sqrt(difference**2 + 1e-9))

        return jax.tree.map(lambda p, g: p - 1e-4 * g, params, jax.grad(loss)(params))

    found = timed(step, made_up(net), video, truth)
    row = {"clip": f"{frames} of {size}x{size}", "dtype": dtype}
    return row | {"s a step": round(found.seconds, 3)} | _costs(found)


def form(
    name: str, fields: Row, field: str, value: str, frames: int, size: int, first: list[Any]
) -> Row:
    """Times one form of a network's operator, forward and backward; `first` keeps its results."""
    net = models.build(name, **fields, **{field: value})
    video = waves((1, net.window or frames, size, size, in_channels(net)))

    def both(params: Any, video: jax.Array) -> Any:
        def total(video: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = net.apply({"params": params}, video)
            return jnp.sum(out * out), out

        gradient, out = jax.grad(total, has_aux=True)(video)
        return out, gradient

    found = timed(both, made_up(net), video)
    out, gradient = map(np.asarray, found.result)
    first[:] = first or [out, gradient]
    errors = [
        f"{np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-20):.1e}"
        for x, y in zip((out, gradient), first, strict=True)
    ]
    row = {field: value, "ms, with gradient": round(1e3 * found.seconds, 1)}
    return row | {"output differs": errors[0], "gradient differs": errors[1]} | _costs(found)


def run(report: Report, *, small: bool) -> None:
    """Measures everything, what matters most first."""

    def fields(name: str) -> Row:
        return SMALL[name] if small else {}

    for name in GOLDENS[:1] if small else GOLDENS:
        report.measure("golden outputs", name, lambda name=name: golden(name))
    outputs: dict[str, Any] = {}
    sizes = {"rvrt_sr": (180, 320), "edvr_l": (180, 320), "basicvsr": (180, 320)}
    sizes |= {} if small else {"rvrt_denoise": (720, 1280)}
    for name, size in sizes.items():
        for dtype in ("float32", "bfloat16"):
            case = name, fields(name), 4 if small else 10, (16, 24) if small else size, dtype
            report.measure("frames", name, lambda case=case: speed(*case, outputs), dtype)
    learns = "edvr_m" if small else "rvrt_sr"  # where there is flow, gradients compile for long
    for dtype in ("float32", "bfloat16"):
        case = learns, fields(learns), 4 if small else 30, 8 if small else 64, dtype
        report.measure("training step", learns, lambda case=case: training(*case), dtype)
    operators = {"edvr_m": "deform_conv"} if small else FORMS
    for name, field in operators.items():
        plain: list[Any] = []
        for value in ("plain", "streamed", "at_once"):
            case = name, fields(name), field, value, 4, 8 if small else 64, plain
            report.measure("forms of operators", name, lambda case=case: form(*case), value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures the networks on the device here.")
    parser.add_argument("--minutes", type=float, default=10, help="no more than these (10)")
    parser.add_argument("--small", action="store_true", help="small networks: a trial on a CPU")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(argv)
    parallel.search_less_on_tpus()  # as commands do
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # a platform whose plugin is not installed
        reason = (str(error).splitlines() or ["the platform that is asked for is not installed"])[0]
        print(f"JAX finds no device: {reason}", file=sys.stderr)
        return 1
    report = Report(args.results, args.minutes, device)
    report.end_in_time()
    if device.platform not in ("cpu", "gpu", "tpu"):
        report.note(f"{device.platform} is a platform that was never tried; it takes GPUs' forms")
    if device.platform == "cpu" and not args.small:
        report.note("this is a CPU, for which the sizes are far too large; --small is a trial")
    if STOOD_IN:
        report.note("einops is not installed; benchmarks/einops_standin.py takes its place")
    with traced_for(device):  # as commands do
        run(report, small=args.small)
    report.write()
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
