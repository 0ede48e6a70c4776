"""Whole runs on a stand-in network: stopping, killing, resuming, and what is left on disk."""

import contextlib
import json
import resource
import shutil
import signal
import threading

import cv2
import jax
import numpy as np
import pytest
from helpers import standin
from helpers.runs import STEPS, final, log_lines, run
from helpers.toy import PARAMS, Toy

from rvrt_jax import parallel
from rvrt_jax.data import degrade
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import metrics
from rvrt_jax.ops import platforms
from rvrt_jax.training import ahead, checkpoint, optim, validation


def _assert_same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


pytestmark = pytest.mark.usefixtures("program_cache")


def test_a_run_learns_freezes_and_thaws(straight):
    result = final(straight)
    fresh = standin.flow_params()
    early = straight.parent / "frozen"
    run(early, steps=5, lr_floor=1e-7, eval_every=100)
    frozen = final(early, steps=5)
    _assert_same(frozen.params["spynet"], fresh)
    assert np.any(result.params["spynet"]["conv"]["kernel"] != fresh["conv"]["kernel"])
    losses = [line["loss"] for line in log_lines(straight) if "loss" in line]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_the_log_says_what_happened(straight):
    lines = log_lines(straight)
    assert lines[0]["step"] == 0 and set(lines[0]["clips"]) == {"noise"}
    assert lines[0]["bicubic"]["psnr_rgb"] == lines[0]["clips"]["noise"]["psnr_rgb"]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    rate = optim.cosine(peak=1e-2, floor=1e-7, steps=STEPS, warmup_steps=2)
    np.testing.assert_allclose(
        [line["lr"] for line in steps], [rate(i) for i in range(STEPS)], rtol=1e-5
    )
    expected = {"step", "loss", "psnr", "grad_norm", "lr", "skipped", "steps_per_second"}
    expected |= {"flow_mean", "flow_max", "input_wait", "grad_norm_flow", "grad_norm_rest"}
    expected |= {"samples_per_second", "tflops"}
    assert set(steps[0]) == expected
    assert [line["step"] for line in lines if "validation" in line] == [6, 12]
    assert len(list((straight / "tensorboard").iterdir())) == 1


def test_config_json_names_the_model(straight):
    config = json.loads((straight / "config.json").read_text())
    assert config["model"] == {"name": "standin", "width": 8}
    assert config["lr"] == 1e-2


def test_latest_and_best_are_kept(tmp_path):
    run(tmp_path, lr=10.0, lr_floor=10.0, warmup_steps=0, eval_every=3, save_every=1, steps=9)
    scores = {
        x["step"]: x["validation"]["psnr_rgb"] for x in log_lines(tmp_path) if "validation" in x
    }
    best = max(scores, key=scores.__getitem__)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best() == (best, pytest.approx(scores[best]))
        assert checkpoints.latest() == 9
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    # Step 9 was saved before it was validated, so that the best one before is there still.
    assert kept == {max((3, 6), key=scores.__getitem__), 8, 9}


def test_half_written_and_damaged_checkpoints_are_passed_over(tmp_path, straight, caplog):
    with standin.signalled(signal.SIGTERM, after=7):
        run(tmp_path)  # leaves checkpoints 6 and 8
    folder = tmp_path / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"6", "8"}
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    for path in (folder / "8" / "rest").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run(tmp_path)
    assert f"{folder / '8'} is damaged" in caplog.text
    assert len(list((tmp_path / "checkpoints-damaged").glob("8-*"))) == 1
    _assert_same(final(tmp_path), final(straight))


def test_a_checkpoint_of_another_structure_is_left_alone(straight):
    message = r"config\.ema_decay=0\.9, not 0.*--config\.ema_decay=0\.9"
    with pytest.raises(UserError, match=message):
        run(straight, ema_decay=0.0)
    kept = {path: path.read_bytes() for path in straight.glob("checkpoints/*/rest/_METADATA")}
    for path, content in kept.items():
        path.write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"no checkpoint in .* \(newest: 12, .*--workdir"):
        run(straight)
    for path, content in kept.items():
        path.write_bytes(content)
    rest = straight / "checkpoints" / "12" / "rest"
    rest.rename(straight / "hidden")
    with pytest.raises(UserError, match=r"12 cannot be read \(FileNotFoundError: .*not found.*"):
        run(straight)  # which does not go back to step 6
    (straight / "hidden").rename(rest)


def test_how_a_model_is_computed_may_change_on_the_way(tmp_path, capsys):
    fields = {"name": "standin", "width": 8}
    run(tmp_path, model=fields, steps=2)
    run(tmp_path, model=fields | {"dtype": "bfloat16"}, steps=3)
    assert "model.dtype: None -> bfloat16" in capsys.readouterr().err
    assert int(final(tmp_path, steps=3).step) == 3


# The threads of orbax raise the error too, beside the one that is reported.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_the_run_with_a_message(tmp_path):
    """A limit on the size of files stands in for the disk: writing fails half way as well."""
    big = {"name": "standin", "width": 600}  # a checkpoint of several MB
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, before[1]))
    try:
        with pytest.raises(UserError, match=r"could not be written to .*MiB free.*from the start"):
            run(tmp_path, model=big, steps=2, save_every=1, eval_every=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run(tmp_path, model=big, steps=2, save_every=1, eval_every=9)  # as the message says


def test_too_little_room_is_found_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(UserError, match=r"has 1 MiB free; its checkpoints, 1 MiB each, need 1"):
        run(tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


def test_a_picture_shows_input_output_and_truth(straight):
    pictures = sorted(path.name for path in (straight / "pictures").iterdir())
    assert pictures == ["validation_0000006.png", "validation_0000012.png"]
    picture = cv2.imread(str(straight / "pictures" / pictures[1]))[..., ::-1]
    (clip,) = standin.validation(None)
    gt = clip["gt"][1]  # the middle one of two frames, smaller than the picture's crops
    size, step = len(gt), validation.CROP + validation.GAP
    np.testing.assert_array_equal(picture[:size, 2 * step : 2 * step + size], gt)
    enlarged = degrade.imresize(clip["lq"], 4)[1]
    np.testing.assert_array_equal(picture[:size, :size], enlarged)
    assert np.any(picture[:size, step : step + size] != enlarged)


def test_a_finished_run_says_so_and_more_steps_go_on(tmp_path, capsys):
    run(tmp_path, steps=2)
    run(tmp_path, steps=2)
    assert "done: 2 steps" in capsys.readouterr().err
    run(tmp_path, steps=3)
    assert "changed in the config since: steps: 2 -> 3" in capsys.readouterr().err
    assert int(final(tmp_path, steps=3).step) == 3


def test_a_folder_of_another_model_is_refused(tmp_path, straight):
    with pytest.raises(UserError, match=r"another model \(model\.width: 8 -> 9\).*--workdir"):
        run(straight, model={"name": "standin", "width": 9})


def test_training_stops_after_too_many_skipped_steps(tmp_path, monkeypatch):
    broken = lambda self, index: {k: v * np.nan for k, v in good(self, index).items()}  # noqa: E731
    good = standin.Noise.map
    monkeypatch.setattr(standin.Noise, "map", broken)
    monkeypatch.setattr(standin, "validation", lambda config: [])
    with pytest.raises(UserError, match=r"3 steps in a row up to step 3 .* config\.lr"):
        run(tmp_path)
    line = log_lines(tmp_path)[-1]
    assert line["loss"] is None and line["skipped"] == 2


def test_values_that_cannot_work_are_refused_at_once(tmp_path):
    for change, message in (
        ({"steps": 0}, "config.steps=0"),
        ({"accumulate": 0}, "config.accumulate=0"),
        ({"clip_norm": -1.0}, "config.clip_norm=-1.0"),
        ({"lr_periods": (3, 4), "lr_weights": (1.0, 1.0)}, "config.lr_periods=.*take 7 steps"),
        ({"init_from": "nobody"}, "no file nobody"),
        ({"lr_floor": 1.0}, "lr_floor"),
        ({"model": {"name": "standin", "depth": 3}}, "standin has no field depth"),
        ({"model": {"name": "nothing"}}, "unknown model 'nothing'"),
    ):
        with pytest.raises((UserError, FileNotFoundError), match=message):
            run(tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("devices", [1, 3])
def test_validation_takes_clips_of_any_size_and_keeps_their_order(devices, monkeypatch):
    """Three frames for a network of clips of two; several devices are one in several roles."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1] * devices)
    rng = np.random.default_rng(0)
    clips, expected = [], {}
    for i in range(4):
        lq = rng.integers(0, 255, (3, 5 + i, 7, 3)).astype(np.uint8)
        gt = rng.integers(0, 255, (3, 20 + 4 * i, 28, 3)).astype(np.uint8)
        clips.append({"name": f"clip {i}", "lq": lq, "gt": gt})
        enlarged = lq.repeat(4, axis=1).repeat(4, axis=2)
        frames = [metrics.frame_scores(a, b) for a, b in zip(enlarged, gt, strict=True)]
        expected[f"clip {i}"] = {k: np.mean([f[k] for f in frames]) for k in frames[0]}
    result = validation.score(Toy(), PARAMS, clips, stop=lambda: False)
    assert result is not None and list(result.scores) == list(expected)
    for name, scores in expected.items():
        assert result.scores[name] == pytest.approx(scores)
    assert validation.score(Toy(), PARAMS, clips, stop=lambda: True) is None


def test_a_denoiser_gets_its_noise_level():
    """The network adds the level to its input; frames carry it as their fourth channel."""
    rng = np.random.default_rng(0)
    gt = rng.integers(0, 200, (2, 12, 13, 3)).astype(np.uint8)
    lq = np.concatenate([gt / np.float32(255), np.full((2, 12, 13, 1), 20 / 255, np.float32)], -1)
    model = Toy(scale=1, takes_noise_level=True)
    clips = [{"name": "clip", "lq": lq, "gt": gt}]
    result = validation.score(model, PARAMS, clips, stop=lambda: False)
    assert result is not None
    assert result.scores["clip"]["psnr_rgb"] == pytest.approx(20 * np.log10(255 / 20), abs=1e-4)
    assert validation.bicubic(clips, scale=1)["clip"]["psnr_rgb"] == np.inf


def test_work_is_shared_out_over_devices_in_order(monkeypatch):
    devices = ["a", "b", "c"]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    monkeypatch.setattr(jax, "default_device", lambda device: contextlib.nullcontext())
    met = threading.Barrier(3, timeout=60)

    def work(device, item):
        if item < 3:
            met.wait()  # passes only if three work at a time
        return device, item

    done = parallel.share_devices(work, range(7))
    assert [item for _, item in done] == list(range(7))
    assert {device for device, _ in done[:3]} == set(devices)
    with pytest.raises(ZeroDivisionError):
        parallel.share_devices(lambda device, item: 1 // item, [1, 0, 2])


def test_the_step_after_a_thaw_is_compiled_while_the_ones_before_run(tmp_path, caplog):
    jax.config.update("jax_log_compiles", True)  # in all threads, unlike jax.log_compiles()
    try:
        # As a command does: the thread that compiles ahead does not know what a caller has said.
        with caplog.at_level("WARNING"), platforms.known_to_be(None):
            run(tmp_path, steps=4, flow_freeze_steps=2, eval_every=100)
    finally:
        jax.config.update("jax_log_compiles", False)
    compiled = [r for r in caplog.records if r.getMessage().startswith("Compiling jit(_fun)")]
    assert [r.threadName.startswith("compile_ahead") for r in compiled] == [False, True]


def test_what_fails_to_compile_ahead_is_told_when_it_is_needed():
    class Broken:
        def lower(self, *_):
            raise MemoryError("too large")

    programs = ahead.Programs(lambda frozen: Broken())
    programs.prepare(frozenset(), "state", "batch")
    with pytest.raises(MemoryError, match="too large"):
        programs(frozenset())
    assert isinstance(programs(frozenset({"flow"})), Broken)


def test_the_next_thaw_is_found():
    groups = [
        optim.Group("flow", "spynet", frozen_steps=3),
        optim.Group("rest", "", frozen_steps=5),
    ]
    assert optim.frozen_next(groups, 0, 9) == optim.frozen_next(groups, 2, 9) == {"rest"}
    assert optim.frozen_next(groups, 3, 9) == frozenset()
    assert optim.frozen_next(groups, 5, 9) is None
    assert optim.frozen_next(groups, 3, 5) is None  # the run ends first
