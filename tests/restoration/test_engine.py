"""From frames to files: the integers of `restore`, scene by scene, on any number of devices."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toy import PARAMS, Slide, Toy

from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames, open_writer, to_uint
from rvrt_jax.restoration import clip as clips
from rvrt_jax.restoration import programs, scenes
from rvrt_jax.restoration.clip import OutputOptions, Stages, restore_clip
from rvrt_jax.restoration.journal import Journal
from rvrt_jax.restoration.plan import Plan
from rvrt_jax.restoration.restore import restore
from rvrt_jax.restoration.settings import RestoreSettings

TESTS = Path(__file__).parents[1]
NETWORKS = {
    "clips": (Toy(scale=2, blur=True), PARAMS, {"tile": (4, 9, 11), "overlap": (2, 3, 4)}),
    "windows": (Slide(), {"gain": np.float32(1 / 25)}, {"tile": (2, 9, 11), "overlap": (0, 3, 4)}),
    "whole": (Toy(scale=2, blur=True), PARAMS, {"tile": None}),
    "whole windows": (Slide(), {"gain": np.float32(1 / 25)}, {"tile": None}),
}


def images(count, *, dtype=np.uint8, seed=0):
    shape = (count, 13, 17, 3)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def write(path, frames):
    size = {"height": frames.shape[1], "width": frames.shape[2], "bits": 8 * frames.itemsize}
    with open_writer(path, fps=25, **size) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def restored(folder, model, params, settings, **options):
    """Restores the images in `folder`/in; returns what is then in `folder`/out."""
    with open_frames(folder / "in") as source:
        stages = Stages((model, params))
        chosen = OutputOptions(**options)
        restore_clip(stages, source, str(folder / "out"), settings, chosen, name="clip")
    return open_frames(folder / "out").read_all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_integers_are_those_of_restore(tmp_path, name, dtype):
    model, params, settings = NETWORKS[name]
    frames = images(11, dtype=dtype)
    write(tmp_path / "in", frames)
    out = restored(tmp_path, model, params, RestoreSettings(**settings))
    expected = restore(model, params, frames, **settings)
    np.testing.assert_array_equal(out, to_uint(expected, 8 * frames.itemsize))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_scene_is_restored_by_itself(tmp_path, name):
    model, params, settings = NETWORKS[name]
    parts = [images(6) // 16, images(1, seed=1) // 16 + 192, images(7, seed=2) // 16 + 96]
    frames = np.concatenate(parts)
    assert [len(list(scene)) for scene in scenes.split(frames)] == [6, 1, 7]
    write(tmp_path / "in", frames)
    out = restored(tmp_path, model, params, RestoreSettings(**settings), scene_cuts="auto")
    expected = np.concatenate([restore(model, params, part, **settings) for part in parts])
    np.testing.assert_array_equal(out, to_uint(expected, 8))


@pytest.mark.parametrize("seconds", [0, 0.3], ids=["", "slow disk"])
def test_a_value_that_is_not_a_number_is_named_with_its_frame(tmp_path, monkeypatch, seconds):
    """What was finished before is kept, that which still waits for the disk too."""
    keep = Journal.write

    def write_slowly(*args):
        time.sleep(seconds)
        keep(*args)

    monkeypatch.setattr(Journal, "write", write_slowly)

    class Overflows(Toy):
        def __call__(self, video):
            out = super().__call__(video)
            return jnp.where(video.max((2, 3, 4), keepdims=True) < 1, out, jnp.nan)

    frames = images(12)
    frames[9, 0, 0] = 255
    write(tmp_path / "in", frames)
    settings = RestoreSettings((3, 0, 0), (0, 0, 0))
    with pytest.raises(UserError, match="frame 9 comes out of the network with"):
        restored(tmp_path, Overflows(time_multiple=1), PARAMS, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.part"]
    assert len(list((tmp_path / "out.part").glob("*.mkv"))) == 3


def exhausted(monkeypatch, largest):
    """Lets the network run out of memory with more than so many values in a call."""
    apply = programs.apply

    def limited(model, params, video):
        if video.size > largest:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        return apply(model, params, video)

    limited.lower = apply.lower
    monkeypatch.setattr(programs, "apply", limited)


def test_a_smaller_tile_is_tried_where_memory_runs_out(tmp_path, monkeypatch, capsys):
    model, frames = Toy(scale=2), np.repeat(images(4), 4, axis=1).repeat(4, axis=2)
    write(tmp_path / "in", frames)
    exhausted(monkeypatch, 4 * 52 * 68 * 3 // 2)
    out = restored(tmp_path, model, PARAMS, RestoreSettings("auto", (1, 2, 2)))
    np.testing.assert_array_equal(out, frames.repeat(2, axis=1).repeat(2, axis=2))
    assert "Trying a smaller one" in capsys.readouterr().err
    with pytest.raises(UserError, match="too little memory"):  # a tile that was asked for stays
        restored(tmp_path, model, PARAMS, RestoreSettings(None), overwrite=True)


def test_smaller_tiles_are_tried_for_two_networks(tmp_path, monkeypatch, capsys):
    frames = np.repeat(images(4), 4, axis=1).repeat(4, axis=2)
    write(tmp_path / "in", frames)
    exhausted(monkeypatch, 4 * 104 * 136 * 3 // 2)  # half of what the second gets
    stages = Stages((Toy(scale=2), PARAMS), (Toy(scale=1), PARAMS))
    with open_frames(tmp_path / "in") as source:
        settings = RestoreSettings("auto", (1, 2, 2))
        restore_clip(stages, source, str(tmp_path / "out"), settings, OutputOptions(), name="clip")
    out = open_frames(tmp_path / "out").read_all()
    np.testing.assert_array_equal(out, frames.repeat(2, axis=1).repeat(2, axis=2))
    assert "clip, second stage: tile" in capsys.readouterr().err


def test_a_pipe_is_not_begun_again_when_memory_runs_out(tmp_path, monkeypatch, capfdbinary):
    frames = np.repeat(images(4), 4, axis=1).repeat(4, axis=2)
    write(tmp_path / "in", frames)
    exhausted(monkeypatch, 4 * 52 * 68 * 3 // 2)
    with open_frames(tmp_path / "in", fps="25") as source:
        stages, settings = Stages((Toy(scale=2), PARAMS)), RestoreSettings("auto", (1, 2, 2))
        options = OutputOptions(fps="25")
        with pytest.raises(UserError, match="too little memory"):
            restore_clip(stages, source, "-", settings, options, name="clip")
    assert capfdbinary.readouterr().out.count(b"YUV4MPEG2") <= 1


def test_what_is_finished_stays_when_memory_runs_out_later(tmp_path, monkeypatch):
    model, frames = Toy(scale=2), images(12)
    write(tmp_path / "in", frames)
    calls, apply = [], programs.apply

    def once(model, params, video):
        calls.append(video.shape)
        if len(calls) == 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        return apply(model, params, video)

    once.lower = apply.lower
    monkeypatch.setattr(programs, "apply", once)
    first = Plan((4, 0, 0), (2, 3, 4), (4, 16, 24), 1, 10, 20)
    smaller = dataclasses.replace(first, tile=(4, 9, 11))
    plans = iter([(first, None)])
    monkeypatch.setattr(clips, "_plans", lambda *_: next(plans))
    kept = []
    monkeypatch.setattr(clips, "_smaller", lambda *_, keep_time: kept.append(keep_time) or smaller)
    out = restored(tmp_path, model, PARAMS, RestoreSettings("auto", (2, 3, 4)))
    np.testing.assert_array_equal(out, frames.repeat(2, axis=1).repeat(2, axis=2))
    assert kept == [True]
    # Two segments were finished; the third shares frames with the second, which is computed again.
    assert [shape[2:4] for shape in calls[:3]] == [(16, 24)] * 3
    assert all(shape[2:4] == (9, 11) for shape in calls[3:])


def test_two_processes_do_not_write_one_output(tmp_path):
    with Journal(tmp_path / "out", {}, fresh=False):
        with pytest.raises(UserError, match="another process is restoring"):
            Journal(tmp_path / "out", {}, fresh=True)
    assert not list(tmp_path.iterdir())


def test_what_differs_is_named_and_can_be_thrown_away(tmp_path):
    frames = images(2)
    with Journal(tmp_path / "out", {"a": 1, "b": [2]}, fresh=False) as journal:
        journal.begin(
            clips._plans(Stages((Toy(), PARAMS)), "", (2, 9, 9), RestoreSettings(), None)[0]
        )
        journal.write(0, 2, frames)
    with pytest.raises(UserError, match=r"differs in b, c\."):
        Journal(tmp_path / "out", {"a": 1, "b": [3], "c": 0}, fresh=False)
    with Journal(tmp_path / "out", {"a": 1, "b": [2]}, fresh=True) as journal:
        assert journal.done == [(0, 2)]
        np.testing.assert_array_equal(list(journal.read(0, 2)), frames)
    with Journal(tmp_path / "out", {"a": 2}, fresh=True) as journal:
        assert journal.done == []
    assert not list(tmp_path.iterdir())


def in_a_process(source, output, network, tile, overlap, *, devices=1):
    """Restores in a process of its own; returns its peak memory in KiB."""
    environment = os.environ | {
        "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "MALLOC_ARENA_MAX": "1",  # else it differs from run to run how many threads open one
    }
    # Programs out of a cache take less than compiling does, which hides what comes on top.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    arguments = [str(source), str(output), network, json.dumps(tile), json.dumps(overlap)]
    command = [sys.executable, "-m", "helpers.restore_file", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_devices_share_the_segments_and_the_tiles(tmp_path, name):
    model, params, settings = NETWORKS[name]
    settings = {"overlap": (2, 3, 4)} | settings
    frames = images(21)
    write(tmp_path / "in", frames)
    network = "windows" if "windows" in name else "clips"
    chosen = settings["tile"], settings["overlap"]
    in_a_process(tmp_path / "in", tmp_path / "out", network, *chosen, devices=4)
    expected = restore(model, params, frames, **settings)
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), to_uint(expected, 8))


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Within 10 % from 300 to 3,000 frames; the float frames of 2,700 would be 120 MB more."""
    assert peak(tmp_path, 3000) < 1.1 * peak(tmp_path, 300)


def peak(folder, count):
    """Returns the peak memory in KiB of restoring so many frames."""
    frames = np.random.default_rng(0).integers(0, 255, (count, 24, 32, 3)).astype(np.uint8)
    source, output = folder / f"{count}.mkv", folder / f"{count}.out.mkv"
    with open_writer(source, fps=25, height=24, width=32, codec="ffv1") as writer:
        for frame in frames:
            writer.write(frame)
    kib = in_a_process(source, output, "clips", (20, 0, 0), (2, 0, 0))
    assert open_frames(output).length == count
    return kib
