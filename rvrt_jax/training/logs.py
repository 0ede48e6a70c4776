"""What a run tells: a progress bar, `log.jsonl`, TensorBoard event files, and pictures."""

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX
from tensorboardX import record_writer
from tqdm import tqdm

from rvrt_jax.errors import UserError, describe
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.parallel import DROP, SAVE, STOP, VOTES
from rvrt_jax.training.hosts import Agreed

LOG = "log.jsonl"
EVENTS = "tensorboard"
PICTURES = "pictures"
_GUARDED = "guarded"  # before a path: tensorboardX's files are EventFiles there
WAITING = 0.2  # share of the time from which on the wait for input is worth a message


class Logs:
    """The outputs of one run from `start` to `steps`; a context manager.

    Lines and events of a killed run that lie beyond `start` are dropped, so that the log tells
    every step once. With `silent`, as on all hosts but the first, nothing is written or printed.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        start: int,
        steps: int,
        silent: bool = False,
        wandb_project: str = "",
    ) -> None:
        # First, as it may raise.
        self._wandb = _weights_and_biases(wandb_project, workdir) if not silent else None
        self._silent = silent
        self._pictures = workdir / PICTURES
        path = workdir / LOG
        if path.is_file() and not silent:
            _drop_after(path, start)
        self._file = Path(os.devnull).open("w") if silent else path.open("a")
        self._events = tensorboardX.SummaryWriter(
            f"{_GUARDED}:{workdir / EVENTS}", purge_step=start + 1, write_to_disk=not silent
        )
        self._interactive = sys.stderr.isatty() and not silent
        self._bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not self._interactive,
        )
        self._steps = steps
        self._last = (start, time.monotonic())
        self._waited = 0.0
        self.batch_size = 0  # clips of a step, ...
        self.flops = 0.0  # ... and what it computes on all devices, once these are known

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self._show(self._bar.close)
        self._events.close()
        if self._wandb is not None:
            self._wandb.finish()
        self._file.close()

    def advance(self, loss: float, psnr: float) -> None:
        """Moves the progress bar by one step."""
        self._bar.set_postfix_str(f"loss {loss:.4f}, PSNR {psnr:.2f}", refresh=False)
        self._show(self._bar.update)

    def training(self, step: int, values: dict[str, float]) -> None:
        """Writes the values of a log interval that ends at `step`, with steps/s and the ETA.

        input_wait is the share of the time that went to waiting for samples: near 0 if the input
        keeps the devices fed. samples_per_second, tflops (of all devices, products alone) and the
        peak memory of a device in GiB are there where they are known.
        """
        before, since = self._last
        now = time.monotonic()
        taken = max(now - since, 1e-9)
        speed, waited = (step - before) / taken, min(self._waited / taken, 1.0)
        self._last, self._waited = (step, now), 0.0
        values = values | {"steps_per_second": speed, "input_wait": waited}
        if self.batch_size:
            values["samples_per_second"] = speed * self.batch_size
        if self.flops:
            values["tflops"] = speed * self.flops / 1e12
        peak, limit = device_memory()
        if limit:
            values["device_memory_gib"] = peak / 2**30
        self._write({"step": step} | values)
        self._scalars(step, "train", values)
        if not self._interactive:
            self.message(
                f"step {step}/{self._steps}  loss {values['loss']:.5f}  PSNR {values['psnr']:.2f}"
                f"  lr {values['lr']:.2e}  {speed:.3g} steps/s"
                f"  ETA {duration((self._steps - step) / max(speed, 1e-9))}"
            )
        if waited > WAITING:
            self.message(
                f"step {step}: {waited:.0%} of the time went to waiting for input; more "
                "config.data.num_workers would help"
            )

    def scores(
        self, step: int, mean: dict[str, float], scores: dict[str, dict[str, float]], *, tag: str
    ) -> None:
        """Writes the scores of each clip and their mean; tag: "validation" or "bicubic"."""
        self._write({"step": step, tag: mean, "clips": scores})
        self._scalars(step, tag, mean)
        each = ", ".join(f"{name} {clip['psnr_rgb']:.2f}" for name, clip in scores.items())
        self.message(
            f"step {step}  {tag}: PSNR {mean['psnr_rgb']:.3f} dB (Y {mean['psnr_y']:.3f}), "
            f"SSIM {mean['ssim_rgb']:.4f}  [{each}]"
        )

    def picture(self, step: int, image: np.ndarray, *, tag: str) -> None:
        """Writes a picture, uint8 RGB [h, w, 3], as PNG and as an event."""
        if not self._silent:
            self._pictures.mkdir(exist_ok=True)
            compare.write(self._pictures / f"{tag}_{step:07d}.png", image)
            self._events.add_image(tag, image, step, dataformats="HWC")

    @contextlib.contextmanager
    def untimed(self, *, when: bool = True) -> Iterator[None]:
        """Leaves what happens inside (compiling, validating) out of steps/s and the ETA."""
        begin = time.monotonic()
        yield
        if when:
            step, since = self._last
            self._last = (step, since + time.monotonic() - begin)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what happens inside as waiting for input."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    def message(self, text: str) -> None:
        """Prints one line above the progress bar."""
        if self._silent:
            return
        self._show(lambda: self._bar.write(text, file=sys.stderr))
        self._show(sys.stderr.flush)

    def _show(self, action: Callable[[], object]) -> None:
        """Does something on the terminal. If that is gone (a lost connection) the run goes on."""
        try:
            action()
        except OSError:
            sys.stderr = Path(os.devnull).open("w")

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(_finite(record)) + "\n")
        self._file.flush()

    def _scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(f"{group}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{group}/{name}": value for name, value in values.items()}, step=step)


class EventFile:
    """A file of events that fails without an exception: it warns once, and drops what comes later.

    tensorboardX writes in a thread, which an exception would end: nobody would then empty its
    queue, and the run would wait for room there for ever. `log.jsonl` has all but the pictures.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = Path(path).open("wb")
        self._failed = False

    def write(self, data: bytes) -> None:
        self._try(lambda: self._file.write(data))

    def flush(self) -> None:
        self._try(self._file.flush)
        self._try(lambda: os.fsync(self._file.fileno()))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # tensorboardX flushes before, which has told it
            self._file.close()

    def _try(self, action: Callable[[], object]) -> None:
        if self._failed:  # what follows the lost part could not be read
            return
        try:
            action()
        except OSError as error:
            self._failed = True
            logging.warning(
                "%s cannot be written (%s). TensorBoard will not show what comes until the run is "
                "started again; log.jsonl tells it.",
                self._path,
                describe(error),
            )


class _EventFiles:
    """What tensorboardX asks for files whose paths begin with `_GUARDED`."""

    def directory_check(self, path: str) -> None:
        Path(path.removeprefix(f"{_GUARDED}:")).mkdir(parents=True, exist_ok=True)

    def open(self, path: str) -> EventFile:
        return EventFile(path.removeprefix(f"{_GUARDED}:"))


record_writer.register_writer_factory(_GUARDED, _EventFiles())


@dataclasses.dataclass
class Meter:
    """Collects what steps report, reading each one only when the next is on its way.

    Reading waits for the device; one step late, the device already has the next one to do.
    stop, save, drop: some host has voted for that with a step that was read. A dropped step, after
    which all of them stop, is not collected.
    """

    logs: Logs
    every: int
    max_skipped: int
    stop: bool = False
    save: bool = False
    drop: bool = False
    pending: tuple[int, dict[str, jax.Array]] | None = None
    collected: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def push(self, done: int, values: dict[str, jax.Array]) -> None:
        """Takes the values of the step that makes it `done`; reads the one before."""
        self.drain()
        self.pending = (done, values)

    def drain(self) -> None:
        """Reads what is pending; raises Agreed after too many skipped steps in a row."""
        if self.pending is None:
            return
        done, values = self.pending
        self.pending = None
        read = {key: float(value) for key, value in jax.device_get(values).items()}
        self.stop, self.save = self.stop or bool(read[STOP]), self.save or bool(read[SAVE])
        self.drop = self.drop or bool(read[DROP])
        if self.drop:
            return
        read["psnr"] = -10 * math.log10(read["mse"]) if read["mse"] > 0 else math.nan
        self.collected.append(read)
        self.logs.advance(read["loss"], read["psnr"])
        row = int(read["skipped_in_row"])
        if row:
            self.logs.message(
                f"step {done} skipped: loss {read['loss']}, gradient norm {read['grad_norm']}"
            )
        if row >= self.max_skipped:
            raise Agreed(  # the numbers are the same on all hosts
                f"{row} steps in a row up to step {done} had a non-finite loss or gradient, so "
                "training has stopped; the parameters are those before them. Lower config.lr or "
                "set config.clip_norm (or look for broken input), and start again: it resumes "
                "from the last checkpoint."
            )
        if done % self.every == 0:
            self._log(done)

    def _log(self, done: int) -> None:
        finite = [v for v in self.collected if math.isfinite(v["loss"] + v["grad_norm"])]
        last = self.collected[-1]
        values = {}
        for key in sorted(last.keys() - {"mse", "lr", "skipped", "skipped_in_row", *VOTES}):
            over = np.max if key.endswith("_max") else np.mean
            values[key] = float(over([v[key] for v in finite])) if finite else math.nan
        values |= {key: last[key] for key in ("lr", "skipped")}
        self.logs.training(done, values)
        self.collected.clear()


def _weights_and_biases(project: str, workdir: Path) -> Any:
    """Opens the run of that name, again after a resume; None without a project."""
    if not project:
        return None
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            f"config.wandb_project={project!r} needs Weights & Biases, which is not installed: pip "
            'install wandb, or set it to "".'
        ) from error
    name = workdir.name
    same = f"{name}-{zlib.crc32(str(workdir).encode()):08x}"  # whenever the run resumes
    return wandb.init(project=project, dir=str(workdir), name=name, id=same, resume="allow")


def device_memory() -> tuple[int, int]:
    """Returns the peak use and the limit of this host's first device in bytes; 0 on CPUs."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", 0), stats.get("bytes_limit", 0)


def duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss, or with days where there are some."""
    days, seconds = divmod(round(seconds), 86400)
    text = f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"
    return f"{days}d {text}" if days else text


def _finite(value: Any) -> Any:
    """Replaces non-finite numbers by null, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_after(path: Path, step: int) -> None:
    """Removes the lines of steps after `step`, and a half-written last one."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    temporary = path.with_name(f"{LOG}.tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)
