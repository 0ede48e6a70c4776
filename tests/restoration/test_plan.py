"""Plans: what fits the memory, with the least work; the memory of devices, hosts and containers."""

import dataclasses

import numpy as np
import pytest
from helpers.toy import Slide

from rvrt_jax.errors import UserError
from rvrt_jax.models import memory
from rvrt_jax.restoration import plan as planning
from rvrt_jax.restoration import programs
from rvrt_jax.restoration.settings import RestoreSettings


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the planner reads off a model."""

    scale: int = 4
    time_multiple: int = 2
    size_multiple: int = 1
    pad_multiple: int = 8
    takes_noise_level: bool = False
    window: int | None = None
    takes_noise_level: bool = False
    dtype: type = np.float32

    def working_memory(self, call):
        return memory.of_clip(self, call, 144)


GIB = 2**30


def shared(gib):
    return planning.Budget(int(gib * GIB), int(gib * GIB), shared=True)


def test_the_whole_video_if_it_fits():
    plan = planning.plan_auto(Sizes(), (30, 180, 320), shared(200))
    assert plan.tile == (0, 0, 0) and plan.calls == 1 and plan.call == (30, 184, 320)


@pytest.mark.parametrize("gib", [4, 8, 16])
@pytest.mark.parametrize(
    "size", [(30, 180, 320), (1000, 1080, 1920), (7, 97, 4001), (1, 2160, 3840)]
)
@pytest.mark.parametrize("model", [Sizes(), Sizes(scale=1, size_multiple=4, time_multiple=3)])
def test_a_plan_stays_within_the_budget_and_fits_the_network(gib, size, model):
    budget = shared(gib)
    plan = planning.plan_auto(model, size, budget)
    assert plan.device_bytes + plan.host_bytes <= gib * GIB
    RestoreSettings(plan.tile, plan.overlap).checked(model)
    assert all(n % model.size_multiple == 0 for n in plan.tile[1:])
    assert plan.tile[0] % model.time_multiple == 0


def test_more_memory_means_less_work():
    work = [
        plan.calls * np.prod(plan.call)
        for plan in (
            planning.plan_auto(Sizes(), (200, 360, 640), shared(g)) for g in (3, 6, 12, 48)
        )
    ]
    assert work == sorted(work, reverse=True) and work[0] > work[-1]


def test_a_long_video_is_cut_in_time():
    plan = planning.plan_auto(Sizes(), (10**5, 64, 64), shared(1000))
    assert plan.tile == (100, 0, 0)


def test_the_two_memories_of_a_gpu_machine_are_kept_apart():
    """Little host memory shortens the tile in time, little device memory makes it small."""
    video = (1000, 720, 1280)
    little_host = planning.plan_auto(
        Sizes(), video, planning.Budget(200 * GIB, 4 * GIB, shared=False)
    )
    little_device = planning.plan_auto(
        Sizes(), video, planning.Budget(6 * GIB, 300 * GIB, shared=False)
    )
    assert little_host.tile[0] <= 16 and little_host.host_bytes <= 4 * GIB
    assert little_device.device_bytes <= 6 * GIB and 0 < little_device.tile[1] < 720
    assert little_device.tile[0] >= 16


def test_a_measured_correction_shrinks_the_plan():
    first = planning.plan_auto(Sizes(), (30, 180, 320), shared(16))
    second = planning.plan_auto(Sizes(), (30, 180, 320), shared(16), correction=4.0)
    assert np.prod(second.call) < np.prod(first.call)


def test_no_plan_says_how_much_is_missing():
    with pytest.raises(UserError, match=r"no tile fits.*GiB.*free are 0\.0 GiB"):
        planning.plan_auto(Sizes(), (30, 180, 320), shared(0.01))


def test_an_overlap_that_no_tile_exceeds_is_named():
    for overlap in ((100, 20, 20), (2, 2000, 20)):
        with pytest.raises(UserError, match="which no tile exceeds"):
            planning.plan_auto(Sizes(), (30, 180, 320), shared(16), overlap=overlap)


def test_a_compiler_that_runs_out_of_memory_makes_the_plan_smaller(monkeypatch):
    """As TPUs do, which report it when a program is compiled."""
    tried = []

    def memory_needed(model, params, call, *, batch):
        tried.append(call)
        if np.prod(call) > 2 * 64 * 64:
            raise programs.OutOfMemory("too large")
        return 1000

    monkeypatch.setattr(programs, "memory_needed", memory_needed)
    settings = RestoreSettings("auto", (1, 20, 20))
    plan = planning.plan_tiles(Sizes(), {}, (30, 180, 320), settings, budget=shared(64))
    assert np.prod(plan.call) <= 2 * 64 * 64 and len(tried) == len(set(tried)) > 1
    with pytest.raises(programs.OutOfMemory):
        given = dataclasses.replace(settings, tile=(0, 0, 0))
        planning.plan_tiles(Sizes(), {}, (30, 180, 320), given, budget=shared(64))


def test_a_second_plan_gets_what_the_first_leaves():
    first = planning.Plan((0, 0, 0), (0, 0, 0), (1, 1, 1), 1, device_bytes=30, host_bytes=5)
    assert planning.Budget(100, 50, shared=False).without(first) == planning.Budget(70, 45, False)
    assert planning.Budget(100, 100, shared=True).without(first) == planning.Budget(65, 65, True)


def test_accelerators_get_several_tiles_at_once(monkeypatch):
    needed = lambda model, params, call, *, batch: 1000 * batch  # noqa: E731
    monkeypatch.setattr(programs, "memory_needed", needed)
    monkeypatch.setattr(planning, "frame_bytes", lambda *_: (0, 0))
    settings = RestoreSettings("auto", (2, 20, 20))
    gpu = planning.Budget(5 * 10**9, 10**9, shared=False)
    plan = planning.plan_tiles(Sizes(), {}, (30, 720, 1280), settings, budget=gpu)
    assert plan.batch > 1 and plan.device_bytes == 1000 * plan.batch
    plan = planning.plan_tiles(Sizes(), {}, (30, 720, 1280), settings, budget=shared(4))
    assert plan.batch == 1


@pytest.mark.parametrize(("frames", "windows"), [(9, 4), (3, 2), (1, 1)])
def test_accelerators_get_several_windows_at_once(monkeypatch, frames, windows):
    needed = lambda model, params, call, *, batch: 10**7 * call[0]  # noqa: E731
    monkeypatch.setattr(programs, "memory_needed", needed)
    gpu = planning.Budget(5 * 10**7, 10**9, shared=False)
    settings = RestoreSettings("auto").checked(Slide())
    plan = planning.plan_tiles(Slide(), {}, (frames, 13, 18), settings, budget=gpu)
    assert plan.tile == (windows, 0, 0) and plan.call[0] == windows


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_containers_count(tmp_path, version):
    """The least of a group and those round it; what it cannot give back is taken off."""
    groups = tmp_path / "groups"
    if version == 2:
        groups.write_text("0::/pod/box\n")
        base, limit, used = tmp_path, "memory.max", "anon"
    else:
        groups.write_text("5:cpu,cpuacct:/\n4:memory:/pod/box\n")
        base, limit, used = tmp_path / "memory", "memory.limit_in_bytes", "total_rss"
    (base / "pod/box").mkdir(parents=True)
    (base / limit).write_text("max\n" if version == 2 else f"{2**63 - 4096}\n")
    free = lambda: planning._free_in_container(tmp_path, groups)  # noqa: E731
    assert free() == planning._UNLIMITED
    (base / "pod" / limit).write_text("5000\n")
    (base / "pod/memory.stat").write_text(f"{used} 1500\nother 7\n")
    assert free() == 3500
    (base / "pod/box" / limit).write_text("4000\n")
    (base / "pod/box/memory.stat").write_text(f"other 7\n{used} 1200\n")
    assert free() == 2800


def test_the_memory_is_shared_by_the_devices(monkeypatch):
    one = planning.free_memory()
    monkeypatch.setattr(planning.jax, "local_device_count", lambda: 4)
    four = planning.free_memory()
    assert one.shared and four.host == pytest.approx(one.host / 4, rel=0.2)
