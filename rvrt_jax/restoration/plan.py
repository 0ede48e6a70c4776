"""Choosing how a clip is cut, so that its restoration fits the free memory.

There is one budget for the process: what is free on each device, and of the host's memory the same
part for each of the devices, since each works on a piece of its own.
"""

import dataclasses
import logging
import math
from pathlib import Path

import jax
import psutil

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Params, Size
from rvrt_jax.restoration import programs
from rvrt_jax.restoration.segments import windows_together
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.restoration.tiling import call_shape

_log = logging.getLogger(__name__)

SHARE = 0.7  # of the memory that is free, what a plan may take
TIMES = (100, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)  # at most what was published
SIDES = (1024, 768, 512, 384, 256, 192, 160, 128, 96, 64, 48, 32)
# Frames next to a cut in time lack half of what the recurrence lives on. To make long tiles worth
# some work, each is charged as if it had so many frames more.
CUT_PRICE = 8
MOST_TILES_AT_ONCE = 8
WINDOWS_AT_ONCE = (8, 4, 2)  # what is tried, where more than one pays
_UNLIMITED = 2**60  # cgroup v1 writes a number near 2**63 where there is no limit


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bytes that may be used: the device's, the host's, and whether they are the same memory."""

    device: int
    host: int
    shared: bool

    def without(self, plan: "Plan") -> "Budget":
        """Returns what another plan leaves."""
        taken = plan.device_bytes, plan.host_bytes
        if self.shared:
            taken = sum(taken), sum(taken)
        return Budget(self.device - taken[0], self.host - taken[1], self.shared)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A tile (frames, height, width; 0 = whole axis) and what it is expected to take.

    call: what the network gets; calls: how often; batch: tiles that it gets at once. device_bytes:
    for the network, and for restored frames on the device; host_bytes: for frames on the host.
    """

    tile: Size
    overlap: Size
    call: Size
    calls: int
    device_bytes: int
    host_bytes: int
    batch: int = 1

    def __str__(self) -> str:
        sizes = " x ".join(str(n) if n else "whole" for n in self.tile)
        if any(self.tile):
            tile = f"tile {sizes} (frames x height x width), overlap {self.overlap}"
        else:
            tile = "whole video at once"
        if self.batch > 1:
            tile += f", {self.batch} tiles at once"
        return (
            f"{tile}: {self.device_bytes / 2**30:.2f} GiB for the network, "
            f"{self.host_bytes / 2**30:.2f} GiB for the frames"
        )

    def fits(self, budget: Budget) -> bool:
        """Returns whether the plan stays within a budget."""
        if budget.shared:
            return self.device_bytes + self.host_bytes <= min(budget.device, budget.host)
        return self.device_bytes <= budget.device and self.host_bytes <= budget.host


def plan_tiles(
    model: Network,
    params: Params,
    size: Size,
    settings: RestoreSettings,
    *,
    budget: Budget | None = None,
    time: int | None = None,
) -> Plan:
    """Chooses a tile for a video, and compiles the network for it: later calls reuse the program.

    size: (frames, height, width). settings: as `checked`; a tile that is given stays. budget: as
    `free_memory` by default. time: keeps the tile's number of frames.
    What counts is the memory that the compiler says the network takes. Raises UserError if no tile
    fits, and OutOfMemory if the compiler refuses a tile that was given.
    """
    params = jax.device_put(params)
    overlap = settings.overlap_size
    if settings.tile != "auto":
        return _measured(model, params, plan_tile(model, settings.tile_size, overlap, size), size)
    budget = free_memory() if budget is None else budget
    correction = 1.0
    while True:
        plan = plan_auto(model, size, budget, overlap=overlap, correction=correction, time=time)
        try:
            measured = _measured(model, params, plan, size)
        except programs.OutOfMemory:
            _log.warning("%s: the compiler finds that too large; trying a smaller one.", plan)
            budget = dataclasses.replace(budget, device=plan.device_bytes * 3 // 4)
            continue
        if measured.fits(budget):
            if budget.shared:
                return measured  # a processor computes no faster for having more at once
            grow = _with_batch if model.window is None else _with_windows
            return grow(model, params, measured, size, budget)
        # The estimate grows, so that this plan is not chosen again.
        correction *= max(1.02, measured.device_bytes / plan.device_bytes)


def _measured(model: Network, params: Params, plan: Plan, size: Size) -> Plan:
    """Returns a plan with the memory that the compiler says."""
    needed = programs.memory_needed(model, params, plan.call, batch=plan.batch)
    frames = frame_bytes(model, plan.tile, plan.overlap, size)[0]
    return dataclasses.replace(plan, device_bytes=needed + frames)


def _with_batch(model: Network, params: Params, plan: Plan, size: Size, budget: Budget) -> Plan:
    """Returns the plan with as many tiles at once as fit on an accelerator."""
    axes = zip(size[1:], plan.tile[1:], plan.overlap[1:], strict=True)
    tiles = math.prod(_count(*axis) for axis in axes)
    if tiles == 1:
        return plan
    batch = min(MOST_TILES_AT_ONCE, tiles, budget.device // plan.device_bytes)
    while batch > 1:
        more = dataclasses.replace(plan, batch=batch)
        try:
            more = _measured(model, params, more, size)
        except programs.OutOfMemory:
            more = None
        if more is not None and more.fits(budget):
            return more
        batch //= 2
    return plan


def _with_windows(model: Network, params: Params, plan: Plan, size: Size, budget: Budget) -> Plan:
    """Returns the plan with as many windows at once as fit on an accelerator."""
    for count in WINDOWS_AT_ONCE:
        if plan.tile[0] < count <= size[0]:
            more = plan_tile(model, (count, *plan.tile[1:]), plan.overlap, size)
            try:
                more = _measured(model, params, more, size)
            except programs.OutOfMemory:
                continue
            if more.fits(budget):
                return more
    return plan


def plan_auto(
    model: Network,
    size: Size,
    budget: Budget,
    *,
    overlap: Size = (2, 20, 20),
    correction: float = 1.0,
    time: int | None = None,
) -> Plan:
    """Chooses the tile that restores a video of `size` with the least work within `budget`.

    size: (frames, height, width). correction: measured bytes of an earlier plan over its estimate.
    time: as in `plan_tiles`. Raises UserError if nothing fits.
    """
    multiple = (model.time_multiple, model.pad_multiple, model.pad_multiple)
    shared = (0, *overlap[1:]) if model.window is not None else overlap
    times = {_even(size[0], n, shared[0], multiple[0]) for n in TIMES if n > shared[0]}
    if model.window is not None:
        times = {1}
    tiles = {
        (
            t,
            _even(size[1], side, shared[1], multiple[1]),
            _even(size[2], side, shared[2], multiple[2]),
        )
        for t in (times if time is None else {time})
        for side in (max(size[1:]), *SIDES)
        if side > max(shared[1:])
    }
    plans = [plan_tile(model, tile, overlap, size, correction) for tile in sorted(tiles)]
    if not plans:
        raise UserError(
            f"overlap is {overlap}, which no tile exceeds: automatic tiles have at most "
            f"{TIMES[0]} frames and {max(SIDES[0], *size[1:])} pixels. Pass a smaller overlap, or "
            "the tile yourself."
        )
    fitting = [plan for plan in plans if plan.fits(budget)]
    if not fitting:
        least = min(plans, key=lambda plan: plan.device_bytes + plan.host_bytes)
        raise UserError(
            f"no tile fits the memory: the smallest is {least}; free are "
            f"{budget.device / 2**30:.1f} GiB for the network and {budget.host / 2**30:.1f} GiB "
            f"for the frames. Free some memory, or pass the tile yourself."
        )
    return min(fitting, key=_work)


def plan_tile(
    model: Network, tile: Size, overlap: Size, size: Size, correction: float = 1.0
) -> Plan:
    """Returns the plan of a given tile. Arguments as `plan_auto`'s."""
    call = call_shape(model, tile, size)
    if model.window is not None:
        overlap = 0, overlap[1], overlap[2]
        tile = tile[0] or 1, tile[1], tile[2]
    calls = math.prod(_count(*axis) for axis in zip(size, tile, overlap, strict=True))
    on_device, on_host = frame_bytes(model, tile, overlap, size)
    network = int(correction * model.working_memory(call))
    return Plan(tile, overlap, call, calls, network + on_device, on_host)


def frame_bytes(model: Network, tile: Size, overlap: Size, size: Size) -> tuple[int, int]:
    """Returns the bytes of restored frames on the device, and of all frames on the host."""
    length, height, width = size
    if model.window is None:
        frames = min(tile[0] or length, length)
    else:
        frames = windows_together(tile) + model.window
    pixels = 3 * height * width
    # The frames of a tile in time as the network gives them, what they share with the next one,
    # and, cut in space, the plane that the pieces are joined to.
    restored = frames + overlap[0] * (tile[0] > 0) + frames * (tile[1] == tile[2] == 0)
    # 16 bits at most: read of this tile and two more; restored of this one and the one before.
    read, written = 3 * frames * 2, 2 * frames * 2
    enlarged = pixels * model.scale**2
    return 4 * restored * enlarged, read * pixels + written * enlarged


def _work(plan: Plan) -> int:
    """Returns the pixels that all calls compute, the price of cuts in time included."""
    t, h, w = plan.call
    return plan.calls * (t + CUT_PRICE) * h * w


def _even(size: int, tile: int, overlap: int, multiple: int) -> int:
    """Returns the smallest tile that makes as few cuts as `tile` does; 0 if it makes none."""
    if tile >= size:
        return 0
    count = _count(size, tile, overlap)
    return -(-(size + (count - 1) * overlap) // (count * multiple)) * multiple


def _count(size: int, tile: int, overlap: int) -> int:
    """Returns the number of tiles of an axis, 1 for a whole one."""
    return -(-(size - tile) // (tile - overlap)) + 1 if 0 < tile < size else 1


def free_memory(share: float = SHARE) -> Budget:
    """Returns `share` of the memory that is free on the current device, and its part of the host.

    The local devices may all be at work: each gets the same part of the host's memory.
    """
    devices = jax.local_device_count()
    host = min(psutil.virtual_memory().available, _free_in_container())
    part = int(share * host / devices)
    stats = programs.current_device().memory_stats()
    if stats is None:  # a CPU: the network computes in the host's memory
        return Budget(part, part, shared=True)
    return Budget(int(share * (stats["bytes_limit"] - stats["bytes_in_use"])), part, shared=False)


def _free_in_container(
    root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")
) -> int:
    """Returns the bytes that the limits of this process's control groups leave, v1 or v2."""
    free = _UNLIMITED
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit_file, used = root, "memory.max", "anon "
        elif "memory" in controllers.split(","):
            base, limit_file, used = root / "memory", "memory.limit_in_bytes", "total_rss "
        else:
            continue
        inner = base / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(base) and (folder / limit_file).is_file():
                limit = (folder / limit_file).read_text().strip()
                if limit.isdigit() and int(limit) < _UNLIMITED:
                    free = min(free, int(limit) - _used(folder / "memory.stat", used))
    return free


def _used(statistics: Path, key: str) -> int:
    """Returns the bytes that a control group cannot give back, as its statistics say."""
    for line in statistics.read_text().splitlines() if statistics.is_file() else ():
        if line.startswith(key):
            return int(line.removeprefix(key))
    return psutil.Process().memory_info().rss
