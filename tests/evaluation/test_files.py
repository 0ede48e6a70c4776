"""eval.py from files to files: what it writes, prints and refuses."""

import dataclasses
import importlib.util
import json
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from helpers import goldens
from helpers.toy import PARAMS, Toy

from rvrt_jax import command_line, models
from rvrt_jax.data.degrade import imresize
from rvrt_jax.evaluation import clips as finding
from rvrt_jax.evaluation import files as evaluation
from rvrt_jax.evaluation import metrics
from rvrt_jax.evaluation import picture as compare
from rvrt_jax.evaluation import report as scoreboard
from rvrt_jax.evaluation import test_sets as testsets
from rvrt_jax.media.frames import open_frames, open_writer
from rvrt_jax.media.image_folders import FolderWriter
from rvrt_jax.restoration import clip as clip_restoration
from rvrt_jax.restoration.plan import Budget
from rvrt_jax.restoration.restore import restore
from rvrt_jax.weights import load as loading
from rvrt_jax.weights import mapping, state_dict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program():
    """The module eval.py; its flags are defined once per process."""
    spec = importlib.util.spec_from_file_location("eval_program", ROOT / "eval.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(monkeypatch):
    """Makes every weights file a Toy; returns a function that changes its fields."""
    model = Toy()

    def use(**fields):
        nonlocal model
        model = model.clone(**fields)

    described = lambda *_, **__: loading.Loaded(model, PARAMS, "MIT", "made up")  # noqa: E731
    monkeypatch.setattr(loading, "load_described", described)
    monkeypatch.setattr(loading, "config", lambda model: {"name": "toy"})
    return use


@pytest.fixture
def run(program, toy, capsys):
    """Runs eval.py with arguments; returns (exit code, stdout, stderr)."""

    def call(*arguments, weights="w.pth"):
        with flagsaver.flagsaver():
            flags.FLAGS(["eval.py", "--weights", weights, *map(str, arguments)])
            code = program.main(["eval.py"])
        return code, *capsys.readouterr()

    return call


def images(seed, shape, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def write(path, frames, **options):
    size = {"height": frames.shape[1], "width": frames.shape[2]}
    with open_writer(path, fps=25, bits=8 * frames.itemsize, **size, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def larger(frames):
    return frames.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("tile", ["auto", "none", "2,24,24"])
def test_a_folder_of_images(run, tmp_path, tile):
    frames = images(0, (3, 13, 17, 3))
    write(tmp_path / "in", frames, names=["b1.png", "b2.png", "b10.png"])
    code, out, err = run(
        "--input",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--tile",
        tile,
        "--overlap",
        "1,4,4",
    )
    assert code == 0 and out == ""
    assert ("in: whole video at once" in err) == (tile != "2,24,24") and "licence MIT" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b1.png", "b10.png", "b2.png"]
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), larger(frames))


def test_sixteen_bits_stay_sixteen_bits(run, tmp_path):
    frames = images(0, (2, 5, 7, 3), np.uint16)
    write(tmp_path / "in", frames)
    assert run("--input", tmp_path / "in/*.png", "--output", tmp_path / "out")[0] == 0
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), larger(frames))


def test_a_video_keeps_its_rate_and_streams_through_tiles(run, tmp_path):
    frames = goldens.smooth_video((1, 11, 3, 16, 24), 0)[0].transpose(0, 2, 3, 1)
    frames = np.rint(255 * frames).astype(np.uint8)
    source = write(str(tmp_path / "in.mkv"), frames, codec="ffv1")
    code, _, _ = run("--input", source, "--output", tmp_path / "out.mp4", "--tile", "4,0,0")
    assert code == 0
    with open_frames(tmp_path / "out.mp4") as result:
        assert result.fps == Fraction(25)
        video = result.read_all().astype(int)
    assert video.shape == (11, 64, 96, 3)
    assert np.abs(video - larger(frames)).mean() < 4  # the codec loses some


def test_scores_picture_and_json(run, tmp_path):
    """Two clips of 2 and 4 frames: per clip, mean of clips, mean of frames."""
    for name, length, seed in (("a", 2, 1), ("b", 4, 2)):
        write(tmp_path / "in" / name, images(seed, (length, 8, 9, 3)))
        write(tmp_path / "gt" / name, images(seed + 10, (length, 32, 36, 3)))
    code, out, _ = run(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--gt", tmp_path / "gt"),
        *("--json", tmp_path / "s/scores.json", "--compare", tmp_path / "picture.png"),
    )
    assert code == 0
    report = json.loads((tmp_path / "s/scores.json").read_text())
    expected = {}
    for name in "ab":
        low = open_frames(tmp_path / "in" / name).read_all()
        true = open_frames(tmp_path / "gt" / name).read_all()
        for version, frames in (("bicubic", imresize(low, 4)), ("restored", larger(low))):
            scores = [metrics.frame_scores(a, b) for a, b in zip(frames, true, strict=True)]
            expected[name, version] = {k: np.mean([s[k] for s in scores]) for k in scores[0]}
    for clip in report["clips"]:
        for version in ("bicubic", "restored"):
            assert clip["scores"][version] == pytest.approx(expected[clip["name"], version])
    for metric in metrics_names():
        a, b = expected["a", "restored"][metric], expected["b", "restored"][metric]
        assert report["mean"]["restored"][metric] == pytest.approx((a + b) / 2)
        assert report["mean_of_frames"]["restored"][metric] == pytest.approx((a + 2 * b) / 3)
    lines = out.splitlines()
    assert len(lines) == 1 + 2 * 4 and "PSNR-Y" in lines[0]
    assert f"{expected['b', 'restored']['psnr_rgb']:.2f}" in lines[4]
    for name in "ab":
        assert cv2.imread(str(tmp_path / f"picture_{name}.png")).shape[1] == 3 * 320 + 2 * 6


def metrics_names():
    return ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")


def test_a_perfect_result_is_infinite_and_still_json(run, tmp_path):
    frames = images(0, (2, 12, 12, 3))
    write(tmp_path / "in", frames)
    write(tmp_path / "gt", larger(frames))
    code, out, _ = run(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--gt", tmp_path / "gt"),
        *("--json", tmp_path / "scores.json"),
    )
    assert code == 0 and "inf" in out
    scores = json.loads((tmp_path / "scores.json").read_text())["clips"][0]["scores"]["restored"]
    assert scores["psnr_rgb"] is None and scores["ssim_rgb"] == pytest.approx(1)


def test_sigma_zero_and_an_input_line_at_scale_one(run, toy, tmp_path):
    toy(scale=1, takes_noise_level=True)
    frames = images(0, (2, 12, 12, 3))
    for name in ("in", "gt"):
        write(tmp_path / name, frames)
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--gt", tmp_path / "gt")
    code, out, _ = run(*arguments, "--sigma", 0)
    assert code == 0 and "input" in out and "bicubic" not in out
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), frames)


def bad_calls():
    return [
        (("--input", "nowhere", "--output", "out"), "nowhere"),
        (("--output", "out"), "--input is required"),
        (("--input", "in"), "--output is required"),
        (("--input", "empty", "--output", "out"), "empty"),
        (("--input", "in", "--output", "taken"), "taken exists"),
        (("--input", "in", "--output", "in"), "is an input or holds one"),
        (("--input", "in", "--output", "out", "--gt", "short"), "short has 1 frame"),
        (("--input", "in", "--output", "out", "--gt", "in"), "becomes 36x32"),
        (("--input", "in", "--output", "out", "--tile", "4,16"), "--tile is 4,16"),
        (("--input", "in", "--output", "out", "--tile", "4,16,16"), "tile of 16 does not exceed"),
        (("--input", "in", "--output", "out", "--overlap", "x"), "--overlap is x"),
        (("--input", "in", "--output", "out", "--sigma", "5"), "takes no noise level"),
        (("--input", "mixed", "--output", "out"), "mixed"),
        (("--input", "cut", "--output", "out"), "cut"),
        (("--input", "in", "--output", "out.mp4"), "images have no frame rate"),
        (("--input", "clips", "--output", "out.mp4", "--fps", "25"), "2 clips"),
        (("--input", "clips", "--output", "out", "--gt", "in"), "in/a"),
        (("--input", "in", "--output", "out", "--compare", "in/00000000.png"), "is an input"),
        (("--input", "in", "--output", "out", "--json", "taken/00000000.png"), "exists"),
    ]


@pytest.mark.parametrize(("arguments", "message"), bad_calls())
def test_mistakes_end_in_one_message_and_leave_nothing(
    run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    write("in", images(0, (2, 8, 9, 3)))
    write("taken", images(0, (2, 8, 9, 3)))
    write("short", images(0, (1, 32, 36, 3)))
    for name in "ab":
        write(f"clips/{name}", images(0, (2, 8, 9, 3)))
    Path("empty").mkdir()
    for name, shape in (("1", (8, 9, 3)), ("2", (9, 8, 3))):
        write(f"mixed_{name}", images(0, (1, *shape)))
    Path("mixed").mkdir()
    Path("mixed_1/00000000.png").rename("mixed/1.png")
    Path("mixed_2/00000000.png").rename("mixed/2.png")
    Path("cut").mkdir()
    Path("cut/1.png").write_bytes(Path("in/00000000.png").read_bytes()[:-60])
    before = sorted(Path().rglob("*"))
    code, out, err = run(*arguments)
    assert code == 1 and out == ""
    assert [line.startswith("error: ") for line in err.splitlines()].count(True) == 1
    last = [line for line in err.splitlines() if "failed: " in line] or err.splitlines()[-1:]
    assert message in last[0] and "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


def test_a_tile_that_does_not_fit_the_memory_is_said_to(run, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_restoration, "free_memory", lambda share=0: Budget(1, 1, shared=True))
    write(tmp_path / "in", images(0, (2, 8, 8, 3)))
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--tile", "none")
    code, _, err = run(*arguments)
    assert code == 0 and "more than is free" in err


def test_a_failure_half_way_keeps_what_is_finished(run, tmp_path, monkeypatch):
    """The disk is full after some frames have been written; the same command goes on."""
    frames = images(0, (9, 8, 8, 3))
    write(tmp_path / "in", frames)
    original, calls = FolderWriter.write, []

    def full_disk(self, frame):
        calls.append(frame)
        if len(calls) == 5:
            raise OSError("No space left on device")
        original(self, frame)

    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--tile", "3,0,0")
    with monkeypatch.context() as patched:
        patched.setattr(FolderWriter, "write", full_disk)
        code, _, err = run(*arguments)
    assert code == 1 and "No space left" in err and "the same command goes on" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.part"]
    code, _, err = run(*arguments)
    assert code == 0 and "going on after" in err
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), larger(frames))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_a_batch_goes_on_after_a_failure(run, tmp_path):
    """An empty folder, and one whose name looks like a file's."""
    frames = images(0, (2, 8, 8, 3))
    (tmp_path / "in/a").mkdir(parents=True)
    for name in ("b", "shot.v2"):
        write(f"{tmp_path / 'in' / name}/", frames)
    paths = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    code, _, err = run(*paths, "--json", tmp_path / "report.json")
    assert code == 1 and "[1/3] a: failed" in err and err.endswith("1 of 3 clips failed: a.\n")
    for name in ("b", "shot.v2"):
        result = open_frames(tmp_path / "out" / name).read_all()
        np.testing.assert_array_equal(result, larger(frames))
    report = json.loads((tmp_path / "report.json").read_text())
    assert [clip["name"] for clip in report["clips"]] == ["b", "shot.v2"] and "a" in report[
        "failed"
    ]
    write(f"{tmp_path}/in/a/", frames)
    code, _, err = run(*paths)  # what is there stays, and the rest is done
    assert code == 1 and "2 of 3 clips failed: b, shot.v2" in err
    assert open_frames(tmp_path / "out/a").length == 2
    code, _, err = run(*paths, "--skip_done")
    assert code == 0 and err.count("is there") == 3


def test_overwrite(run, tmp_path):
    frames = images(0, (2, 8, 8, 3))
    write(tmp_path / "in", frames)
    write(tmp_path / "out", frames)
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out", "--overwrite")[0] == 0
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), larger(frames))


def test_ground_truth_of_a_video_whose_length_was_wrong(run, toy, tmp_path, monkeypatch):
    """A decoder may undercut the announced length; then the ground truth is found too long late."""
    write(tmp_path / "in", images(0, (2, 8, 8, 3)))
    write(tmp_path / "gt", images(0, (3, 32, 32, 3)))
    monkeypatch.setattr(finding, "_check_truth", lambda *_: None)
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--gt", tmp_path / "gt")
    code, _, err = run(*arguments)
    assert code == 1 and "more frames than the 2" in err and not (tmp_path / "out").exists()


def test_a_broken_video_is_refused_or_read_as_far_as_it_goes(run, tmp_path):
    frames = images(0, (12, 16, 24, 3))
    whole = Path(write(str(tmp_path / "in.mkv"), frames, codec="ffv1"))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    arguments = ("--input", cut, "--output", tmp_path / "out")
    code, _, err = run(*arguments)
    assert code == 1 and "--damaged=skip" in err and not (tmp_path / "out").exists()
    assert run(*arguments, "--damaged=skip")[0] == 0
    restored = open_frames(tmp_path / "out").read_all()
    assert 4 < len(restored) < 12
    np.testing.assert_array_equal(restored, larger(open_frames(whole).read_all())[: len(restored)])


def test_what_the_output_cannot_hold_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(FolderWriter, "dropped", ["the sound (pcm)"])
    write(tmp_path / "in", images(0, (2, 8, 8, 3)))
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    code, _, err = run(*arguments, "--json", tmp_path / "report.json")
    assert code == 0 and f"{tmp_path / 'out'}: left out the sound (pcm)" in err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["clips"][0]["left_out"] == ["the sound (pcm)"]


def test_without_input_the_test_sets_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundled = testsets.TEST_SETS["bundled"]
    for name, seed in (("x", 0), ("y", 1)):
        write(f"mine/{name}", images(seed, (2, 32, 36, 3)))
    mine = dataclasses.replace(bundled, gt="mine", clips=2)
    monkeypatch.setitem(testsets.TEST_SETS, "bundled", mine)
    arguments = ("--sets", "bundled", "--data", tmp_path, "--notemporal")
    code, out, _ = run(*arguments)
    assert code == 0 and "bundled clips RGB" in out
    assert sorted(p.name for p in Path("results/all").iterdir()) == sorted(scoreboard.FILES)
    report = json.loads(Path("results/all/scores.json").read_text())
    assert report["licence"] == "MIT" and report["sets"][0]["frames"] == 4
    assert run(*arguments)[2].startswith("error: results/all/scores.md exists.")
    assert run(*arguments, "--overwrite", "--tile", "2,8,8", "--overlap", "0,2,2")[0] == 0
    report = json.loads(Path("results/all/scores.json").read_text())
    assert report["protocol"]["overlap"] == [0, 2, 2] and report["protocol"]["ensemble"] == 1
    assert run(*arguments, "--overwrite", "--ensemble", "4")[0] == 0
    report = json.loads(Path("results/all/scores.json").read_text())
    assert report["protocol"]["overlap"] is None and report["protocol"]["ensemble"] == 4
    code, _, err = run(*arguments, "--gt", "mine", "--quantise")
    assert code == 1 and "--gt, --quantise goes with --input, not with test sets" in err
    code, _, err = run("--sets", "reds4", "--data", tmp_path, "--output", "here")
    assert code == 1 and "REDS4 is not there" in err and not Path("here").exists()


RECIPE = """
from ml_collections import ConfigDict

def get_config():
    fields = dict(embed_dims=(12, 12, 12), num_blocks=(1, 1, 1), num_heads=(2, 2, 2), num_feat=8,
                  deformable_groups=2, attention_heads=2, dtype="float32")
    return ConfigDict({"model": {"name": "rvrt", **fields}})
"""


@pytest.fixture
def command(program, tmp_path, capsys, monkeypatch):
    """Runs eval.py as from a shell, with a recipe of a tiny RVRT; returns (exit code, stderr)."""
    (tmp_path / "recipe.py").write_text(RECIPE)

    def call(*arguments):
        arguments = ["eval.py", "--config", str(tmp_path / "recipe.py"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", arguments)  # config_flags looks for overrides there
        with flagsaver.flagsaver():
            try:
                code = program.main(command_line.parse_flags(arguments))
            except SystemExit as exit_:
                return exit_.code, capsys.readouterr().err
        return code, capsys.readouterr().err

    return call


def test_a_real_network_from_recipe_and_weights(command, tmp_path):
    """Weights of a tiny RVRT go through a file; the result is that of `restore`."""
    fields = {"embed_dims": (12, 12, 12), "num_blocks": (1, 1, 1), "num_heads": (2, 2, 2)}
    fields |= {"num_feat": 8, "deformable_groups": 2, "attention_heads": 2}
    model = models.build("rvrt", **fields, dtype=jax.numpy.dtype("float32"))
    shapes = loading._shapes(model)  # traced once, for the loading that follows too
    table = loading._table(model)
    weights = goldens.state_dict(table, shapes, 3)
    state_dict.write(tmp_path / "w.pth", state_dict.Checkpoint(weights))
    params = mapping.nest(mapping.to_params(table, weights, shapes))
    frames = images(0, (2, 8, 16, 3))
    write(tmp_path / "in", frames)
    paths = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    code, err = command("--weights", tmp_path / "w.pth", *paths)
    assert code == 0, err
    out = np.clip(restore(model, params, frames), 0, 1)
    result = open_frames(tmp_path / "out").read_all().astype(float)
    assert np.abs(result - 255 * out).max() <= 0.501  # rounding


def test_a_wrong_recipe_ends_in_one_message(command):
    code, _ = command("--config.model.num_fat=16")
    assert "the config has no key" in str(code) and "num_fat" in str(code)
    code, _ = command("--config", "nowhere.py")
    assert str(code).startswith("error: there is no recipe nowhere.py; there are basicvsr, ")
    code, err = command("--tile", "none")
    assert code == 1 and err.startswith("error: --weights is required: ")


def test_model_fields_of_a_recipe():
    config = pytest.importorskip("ml_collections").ConfigDict()
    config.model = {"name": "rvrt", "num_feat": 32, "dtype": "float32"}
    name, fields = evaluation.model_fields(config, dtype="bfloat16")
    assert (name, fields) == ("rvrt", {"num_feat": 32, "dtype": jax.numpy.dtype("bfloat16")})
    assert evaluation.model_fields(None, dtype=None) == (None, {})


def test_the_detail_of_a_picture_is_found():
    image = np.full((40, 60, 3), 128, np.uint8)
    image[21:31, 34:49] = images(0, (10, 15, 3))
    rows, columns = compare.most_detailed(image)
    assert abs(rows.start - 21) <= 1 and abs(columns.start - 34) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (700, 1400)])
def test_a_picture_of_any_size(shape):
    image = images(0, (*shape, 3))
    picture = compare.picture([("one", image), ("a very long label " * 20, image)])
    panel = int(np.clip(shape[1], 320, 640))
    assert picture.dtype == np.uint8 and picture.shape[1] == 2 * panel + 6
    with pytest.raises(ValueError, match="one size"):
        compare.picture([("one", image), ("two", image[:, :-1] if shape[1] > 1 else image[:0])])


@pytest.mark.parametrize("source", ["in/00000001.png", "in/*.png", "in/", "./in", "link"])
@pytest.mark.parametrize("output", ["in", "link", "in/../in", "."])
def test_inputs_are_never_replaced(run, tmp_path, monkeypatch, source, output):
    monkeypatch.chdir(tmp_path)
    write("in", images(0, (3, 8, 9, 3)))
    Path("link").symlink_to("in")
    before = {path: path.read_bytes() for path in Path().rglob("*.png")}
    code, _, err = run("--input", source, "--output", output, "--overwrite")
    assert code == 1 and "is an input or holds one" in err
    assert {path: path.read_bytes() for path in Path().rglob("*.png")} == before


def test_a_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    """As it is when the package is installed; files and other names stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    file = str(ROOT / "configs/edvr_tiny.py")
    assert command_line.recipe_file("edvr_tiny") == file
    assert command_line.recipe_file("edvr_tiny:x") == f"{file}:x"
    for other in (file, "nobody", "sub/nobody.py"):
        assert command_line.recipe_file(other) == other
    monkeypatch.setattr(command_line.app, "parse_flags_with_usage", lambda argv: argv)
    given = ["eval.py", "--config", "edvr_tiny", "--config.model.num_feat=24"]
    assert command_line.parse_flags(given) == ["eval.py", "--config", file, given[3]]
    assert sys.argv == ["eval.py", "--config", file, given[3]]
    assert command_line.parse_flags(["eval.py", "--config=edvr_tiny"])[1] == f"--config={file}"


def test_metrics_are_chosen(run, tmp_path):
    frames = images(0, (2, 12, 12, 3))
    write(tmp_path / "in", frames)
    write(tmp_path / "gt", images(1, (2, 48, 48, 3)))
    files = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    code, out, _ = run(*files, "--gt", tmp_path / "gt", "--metrics", "psnr,warp")
    assert code == 0
    assert out.splitlines()[0].split()[1:] == [
        "PSNR",
        "PSNR-Y",
        *"warping error of the truth".split(),
    ]
    code, _, err = run(*files, "--metrics", "psnr", "--overwrite")
    assert code != 0 and "give --gt" in err


def test_a_table_of_test_sets_has_lpips_beside_the_published(tmp_path):
    scores = {"psnr_rgb": 30.0, "ssim_rgb": 0.9, "lpips": 0.2}
    one = {"title": "REDS4", "sigma": None, "metrics": ("psnr_rgb", "ssim_rgb"), "frames": 4}
    one |= {"published_average": "clips", "published": None, "published_lpips": 0.1727}
    one |= {"mean": scores, "mean_of_frames": scores, "clips": {"000": scores}}
    header, line = scoreboard.table([one]).splitlines()
    assert header.split()[-6:-3] == ["LPIPS", "published", "difference"]
    assert line.split()[-3:] == ["0.2000", "0.1727", "+0.0273"]
    assert testsets.PUBLISHED_LPIPS["BasicVSR"] == {"reds4": 0.2023}
