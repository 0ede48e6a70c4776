"""The command `rvrt`: what a person with a film does with it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import films
from helpers.toy import PARAMS, Slide, Toy

from rvrt_jax.cli import rvrt
from rvrt_jax.cli.restore import DEFAULT
from rvrt_jax.evaluation import preview
from rvrt_jax.media.frames import open_frames, open_writer
from rvrt_jax.media.y4m import Y4mReader, Y4mWriter
from rvrt_jax.weights import catalogue
from rvrt_jax.weights import load as loading

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy(monkeypatch):
    """Makes every weights file a Toy that enlarges four times, "two" one that does so twice."""
    models = {"two": Toy(scale=2), "slide": Slide(scale=4)}

    def described(path, *_, **__):
        if path == "nobody":
            raise FileNotFoundError(path)
        return loading.Loaded(models.get(path, Toy()), PARAMS, "MIT", "made up")

    monkeypatch.setattr(loading, "load_described", described)
    monkeypatch.setattr(loading, "config", lambda model: {"name": "toy"})


@pytest.fixture
def run(toy):
    """Runs `rvrt restore` with arguments; returns (exit code, all that it prints)."""

    def call(*arguments):
        result = CliRunner().invoke(rvrt, ["restore", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output

    return call


def images(count, *, height=8, width=12, seed=0):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def write(path, frames, **options):
    size = {"height": frames.shape[1], "width": frames.shape[2]}
    with open_writer(path, fps=25, **size, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def larger(frames, times=4):
    return frames.repeat(times, axis=1).repeat(times, axis=2)


def test_a_film_with_sound_and_no_other_word(run, tmp_path):
    film = films.film(tmp_path / "in.mp4")
    code, out = run(film, tmp_path / "out.mkv")
    assert code == 0 and out.startswith(f"restoring {film} with {DEFAULT}\n")
    assert "25 frames written to" in out and "frames/s" in out
    with av.open(str(tmp_path / "out.mkv")) as result:
        assert [stream.type for stream in result.streams] == ["video", "audio"]
        assert (result.streams.video[0].height, result.streams.video[0].width) == (192, 256)
    assert [d for d, _ in films.packets(tmp_path / "out.mkv", "audio")] == [
        d for d, _ in films.packets(film, "audio")
    ]


def test_the_help_lists_all_models_of_the_catalogue():
    result = CliRunner().invoke(rvrt, ["restore", "--help"])
    assert result.exit_code == 0
    assert catalogue.MODELS.keys() == {*catalogue.WEIGHTS, *catalogue.packaged()} - {
        "spynet",
        "spynet_sintel",
        "lpips_alex",
        "lpips_vgg",
    }
    assert all(name in result.output for name in catalogue.MODELS)
    overview = CliRunner().invoke(rvrt, ["--help"]).output
    assert all(name in overview for name in ("restore", "weights", "convert", "prepare"))


def test_the_first_line_comes_within_two_seconds(tmp_path):
    """Before JAX is loaded; measured in a process of its own."""
    command = [sys.executable, "-m", "rvrt_jax.cli", "restore", "nowhere.mp4", "out.mp4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        seconds = time.perf_counter() - started
        rest = process.stderr.read()
    assert first == f"restoring nowhere.mp4 with {DEFAULT}\n" and seconds < 2
    assert process.returncode == 1 and "nowhere.mp4 does not exist" in rest


def test_a_folder_of_films_and_clips(run, tmp_path):
    """One is broken, which the others do not mind; numbers go in natural order."""
    folder = tmp_path / "in"
    write(folder / "a 10.mkv", images(3, seed=10), codec="ffv1")
    write(folder / "a 2.avi", images(2, seed=2), codec="ffv1")
    write(f"{folder}/shot.v2/", images(4, seed=3))
    (folder / "b.mp4").write_bytes(b"nothing")
    code, out = run(folder, tmp_path / "out", "--codec", "ffv1")
    assert code == 1 and "1 of 4 clips failed: b.mp4." in out
    done = re.findall(r"^\[./4\] (.*?): ", out, re.M)
    assert done == ["a 2.avi", "a 10.mkv", "b.mp4", "shot.v2"]
    for name, frames in (
        ("a 2.avi", images(2, seed=2)),
        ("a 10.mkv", images(3, seed=10)),
        ("shot.v2", images(4, seed=3)),
    ):
        result = open_frames(tmp_path / "out" / name).read_all()
        np.testing.assert_array_equal(result, larger(frames))
    write(folder / "c.mkv", images(1), codec="ffv1")
    code, out = run(folder, tmp_path / "out", "--codec", "ffv1", "--skip_done")
    assert code == 1 and out.count("is there") == 3 and (tmp_path / "out/c.mkv").exists()


def test_several_inputs_and_patterns(run, tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.mkv", images(2), codec="ffv1")
    for inputs in ([tmp_path / "a.mkv", tmp_path / "b.mkv"], [tmp_path / "?.mkv"]):
        code, out = run(*inputs, tmp_path / "out", "--overwrite")
        assert code == 0, out
        assert sorted(os.listdir(tmp_path / "out")) == ["a.mkv", "b.mkv"]
    code, out = run(tmp_path / "a.mkv", tmp_path / "b.mkv", tmp_path / "out.mp4")
    assert code == 1 and "is one video file" in out


@pytest.mark.parametrize("name", ["图 é.mkv", 'it\'s "100%".mkv', "-dash.mkv"])
def test_names_of_all_kinds(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(f"./{name}", images(2), codec="ffv1")
    code, out = run("--codec", "ffv1", "--", name, f"out/{name}")
    assert code == 0, out
    result = open_frames(tmp_path / "out" / name).read_all()
    np.testing.assert_array_equal(result, larger(images(2)))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (2000, 16)])
def test_sizes_of_all_kinds(run, tmp_path, size):
    frames = images(2, height=size[0], width=size[1])
    write(tmp_path / "in", frames)
    code, out = run(tmp_path / "in", tmp_path / "out")
    assert code == 0, out
    np.testing.assert_array_equal(open_frames(tmp_path / "out").read_all(), larger(frames))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("--scale", "2"), (96, 128)),
        (("--scale", "1.5"), (72, 96)),
        (("--height", "100"), (100, 134)),
        (("--width", "64"), (48, 64)),
        (("--width", "200", "--height", "100"), (100, 134)),
        (("--scale", "4"), (192, 256)),
    ],
)
def test_the_size_of_the_output(run, tmp_path, options, size):
    """An even picture stays one under the reduction, and keeps its brightness and shape."""
    film = films.film(tmp_path / "in.mkv", count=3)
    code, out = run(film, tmp_path / "out.mkv", "--codec", "ffv1", *options)
    assert code == 0, out
    with open_frames(tmp_path / "out.mkv") as result, open_frames(film) as source:
        assert (result.height, result.width) == size
        reduced, whole = result.read_all(), larger(source.read_all())
    expected = cv2.resize(whole[1], (size[1], size[0]), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced[1].astype(float) - expected).mean() < 3


def test_a_reduction_does_not_alias(run, tmp_path):
    """Stripes finer than the output can show become grey."""
    stripes = np.zeros((2, 16, 16, 3), np.uint8)
    stripes[:, :, ::2] = 255
    write(tmp_path / "in", stripes)
    assert run(tmp_path / "in", tmp_path / "out", "--scale", "0.5")[0] == 0
    middle = open_frames(tmp_path / "out").read_all()[:, 2:-2, 2:-2]
    assert np.abs(middle.astype(int) - 128).max() < 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", "5"), "is only reduced"),
        (("--scale", "0"), "scale is 0"),
        (("--scale", "two"), "scale is two"),
        (("--scale", "2", "--width", "9"), "--scale goes without"),
        (("--scale", "2", "--compare", "p.png"), "network's own size"),
        (("--codec", "mpeg9"), "codec 'mpeg9' is unknown"),
        (("--model", "nobody"), "nobody"),
        (("--model", "a", "--model", "b"), "several go with --preview"),
        (("--start", "soon"), "start is 'soon'"),
        (("--config", "nobody"), "there is no recipe 'nobody'"),
        (("--tile", "1,2"), "three numbers"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write("in", images(2))
    code, out = run("in", "out.mkv", "--fps", "25", *options)
    assert code == 1 and message in out.splitlines()[-1] and "Traceback" not in out
    assert os.listdir() == ["in"]


def test_a_part_of_a_film(run, tmp_path):
    film = films.film(tmp_path / "in.mkv")
    options = ("--codec", "ffv1", "--start", "0.2", "--frames", "7")
    assert run(film, tmp_path / "out.mkv", *options)[0] == 0
    with open_frames(film) as source, open_frames(tmp_path / "out.mkv") as result:
        np.testing.assert_array_equal(result.read_all(), larger(source.read_all()[5:12]))


def test_a_preview_of_three_models(run, tmp_path):
    film = films.film(tmp_path / "in.mp4")
    models = [f"--model={name}" for name in ("one", "two", "slide")]
    code, out = run(film, tmp_path / "out.mp4", "--preview", "0.2", "--start", "0.4", *models)
    assert code == 0, out
    picture = cv2.imread(str(tmp_path / "out.png"))
    assert picture.shape[1] == 4 * 320 + 3 * 6
    with open_frames(tmp_path / "out.mp4") as video:
        assert video.length == 5 and (video.height, video.width) == picture.shape[:2]
        middle = video.read_all()[2][..., ::-1]
    assert np.abs(middle.astype(int) - picture).mean() < 5
    # The parts that only repeat pixels show the same, but for how the input was enlarged.
    one, two = (picture[40:200, 326 * k : 326 * k + 320].astype(int) for k in (1, 2))
    assert np.abs(one - two).mean() < 8
    assert run(film, tmp_path / "out.mp4", "--preview", "0.2", *models)[0] == 1  # it is there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in", "out", "--preview", "1"), "a preview is of one clip"),
        (("in", "out.mp4", "--preview", "0"), "0.0 s; give more"),
    ],
)
def test_previews_that_cannot_be(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write("in", images(2))
    code, out = run(*arguments)
    assert code == 1 and message in out
    assert preview.RATE == 25 and os.listdir() == ["in"]


def test_a_read_only_folder(run, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    film = films.film(tmp_path / "in.mkv", count=2)
    (tmp_path / "closed").mkdir(mode=0o500)
    code, out = run(film, tmp_path / "closed/out.mkv")
    assert code == 1 and "Permission denied" in out.splitlines()[-1]


def test_recipes_are_found_by_name(run, tmp_path, monkeypatch):
    write(tmp_path / "in", images(2))
    seen = []
    described = loading.load_described
    monkeypatch.setattr(
        loading, "load_described", lambda *a, **k: seen.append((a, k)) or described(*a, **k)
    )
    assert run(tmp_path / "in", tmp_path / "out", "--config", "edvr_tiny")[0] == 0
    (_, name), fields = seen[0]
    assert name == "edvr" and fields["num_feat"] > 0


def test_stopped_from_outside_it_says_how_to_go_on(tmp_path):
    """The installed program, with its own small network."""
    film = films.film(tmp_path / "in.mkv", count=40)
    command = [sys.executable, "-m", "rvrt_jax.cli", "restore", str(film), "out.mkv"]
    kept = str(tmp_path / "programs")  # the second time they need not be compiled
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RVRT_JAX_COMPILE_CACHE": kept}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        part = tmp_path / "out.mkv.part"
        while not list(part.glob("0*.mkv")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert "the same command goes on" in err and err.endswith("stopped.\n")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "going on after" in done.stderr
    assert open_frames(tmp_path / "out.mkv").length == 40


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("weights", "list"), "edvr_tiny"),
        (("convert", "--help"), "Convert a checkpoint"),
        (("prepare", "--help"), "--source"),
    ],
)
def test_other_programs_are_reached(arguments, expected, capsys):
    result = CliRunner().invoke(rvrt, arguments)
    assert result.exit_code == 0 and expected in result.output


def test_scores_against_ground_truth(run, tmp_path):
    low = images(2, height=12)
    write(tmp_path / "in", low)
    write(tmp_path / "gt", larger(low))
    scores, picture = tmp_path / "scores.json", tmp_path / "picture.png"
    code, out = run(
        tmp_path / "in", tmp_path / "out", "--gt", tmp_path / "gt",
        "--json", scores, "--compare", picture,
    )  # fmt: skip
    assert code == 0 and "PSNR-Y" in out and picture.exists()
    assert json.loads(scores.read_text())["clips"][0]["scores"]["restored"]["psnr_rgb"] is None


def test_pipes(toy, tmp_path):
    """What comes in is enlarged on its way; nothing but frames goes out."""
    frames = films.smooth(3)
    pipe = io.BytesIO()
    writer = Y4mWriter(pipe, height=48, width=64, bits=8, fps=films.NTSC)
    for frame in frames:
        writer.write(frame)
    pipe.seek(0)
    seen = np.stack(list(Y4mReader(io.BytesIO(pipe.getvalue()))))
    result = CliRunner().invoke(rvrt, ["restore", "-", "-"], input=pipe.getvalue())
    assert result.exit_code == 0, result.stderr
    out = np.stack(list(Y4mReader(io.BytesIO(result.stdout_bytes))))
    assert np.abs(out.astype(int) - larger(seen)).max() <= 3
    output = tmp_path / "out.mkv"
    arguments = ["restore", "-", str(output), "--codec", "ffv1"]
    assert CliRunner().invoke(rvrt, arguments, input=pipe.getvalue()).exit_code == 0
    with open_frames(output) as film:
        assert film.fps == films.NTSC
        np.testing.assert_array_equal(film.read_all(), larger(seen))
    assert os.listdir(tmp_path) == ["out.mkv"]
    result = CliRunner().invoke(rvrt, ["restore", "-", "-", "--gt", "x"], input=pipe.getvalue())
    assert result.exit_code == 1 and "a pipe is neither scored" in result.stderr


def test_pictures_one_by_one(run, tmp_path):
    """Of several sizes, which are no clip; each becomes an image of its own."""
    for name, height in (("a", 8), ("b", 9), ("c", 8)):
        write(tmp_path / "in" / name, images(1, height=height))
        (tmp_path / "in" / name / "00000000.png").rename(tmp_path / "in" / f"{name}.png")
        (tmp_path / "in" / name).rmdir()
    code, out = run(tmp_path / "in", tmp_path / "out")
    assert code == 1 and "b.png is 12x9" in out and "--one_by_one" in out
    code, out = run(tmp_path / "in", tmp_path / "out", "--one_by_one")
    assert code == 0, out
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "b.png", "c.png"]
    result = open_frames(tmp_path / "out/b.png").read_all()
    np.testing.assert_array_equal(result, larger(images(1, height=9)))
    code, _ = run(tmp_path / "in/a.png", tmp_path / "larger.png")
    assert code == 0 and open_frames(tmp_path / "larger.png").height == 32
