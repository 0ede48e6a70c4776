"""What happens to an upload, without the page."""

import os
import re
import socket
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.toy import PARAMS, Toy

import rvrt_jax.web
from rvrt_jax.errors import UserError
from rvrt_jax.media.frames import open_frames
from rvrt_jax.web import job
from rvrt_jax.web.__main__ import main
from rvrt_jax.weights import catalogue
from rvrt_jax.weights.load import Loaded

LIMITS = job.Limits(frames=4, pixels=64 * 64)


def film(path: Path, shades, *, size=(32, 16)) -> str:
    """Writes grey frames to a video of ten frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size)
    for shade in shades:
        writer.write(np.full((size[1], size[0], 3), shade, np.uint8))
    writer.release()
    return str(path)


def run(files, folder: Path, **options) -> job.Result:
    folder.mkdir(exist_ok=True)
    request = job.Request(files, "edvr_tiny", **{"frames": 4, **options})
    return job.run(request, folder, LIMITS, lambda done, total: None)


def test_a_part_of_a_film_is_restored(tmp_path):
    source = film(tmp_path / "grey.mp4", (40, 80, 120, 160, 200))
    seen = []
    request = job.Request([source], "edvr_tiny", start=0.2, frames=2)
    (tmp_path / "job").mkdir()
    result = job.run(request, tmp_path / "job", LIMITS, lambda *count: seen.append(count))
    assert seen == [(1, 2), (2, 2)]
    assert result.output.name == "grey_restored.mp4"
    assert (result.frames, result.of) == (2, 5)
    with open_frames(result.output) as frames:
        restored = frames.read_all()
    assert restored.shape == (2, 64, 128, 3)
    np.testing.assert_allclose(restored.mean((1, 2, 3)), (120, 160), atol=6)
    before, after = (cv2.imread(str(path)) for path in (result.before, result.after))
    assert before.shape == after.shape == (64, 128, 3)
    np.testing.assert_allclose((before.mean(), after.mean()), (160, 160), atol=6)


def test_the_size_can_be_chosen(tmp_path):
    source = film(tmp_path / "grey.mp4", (40, 80))
    result = run([source], tmp_path / "job", scale="2")
    with open_frames(result.output) as frames:
        assert (frames.height, frames.width) == (32, 64)
    assert cv2.imread(str(result.before)).shape == (32, 64, 3)


def test_the_noise_level_reaches_networks_that_take_one(tmp_path, monkeypatch):
    """The toy adds the level, out of 255, to what it gets."""
    toy = Loaded(Toy(scale=1, takes_noise_level=True), PARAMS)
    monkeypatch.setattr(job, "load_described", lambda name: toy)
    monkeypatch.setattr(job, "_stages", job._stages.__wrapped__)  # keeps nothing
    source = film(tmp_path / "grey.mp4", (40, 80))
    assert job.takes_noise_level("edvr_tiny")
    result = run([source], tmp_path / "job", sigma=50)
    with open_frames(result.output) as frames:
        np.testing.assert_allclose(frames.read_all().mean((1, 2, 3)), (90, 130), atol=6)
    with pytest.raises(UserError, match="noise level"):
        run([source], tmp_path / "none", sigma=None)


def test_images_come_back_in_order_as_a_zip(tmp_path):
    paths = []
    for name, shade in (("b.png", 200), ("a.png", 50)):
        paths.append(str(tmp_path / name))
        cv2.imwrite(paths[-1], np.full((16, 32, 3), shade, np.uint8))
    result = run(paths, tmp_path / "job")
    with zipfile.ZipFile(result.output) as archive:
        images = [np.frombuffer(archive.read(name), np.uint8) for name in archive.namelist()]
    shades = [cv2.imdecode(image, cv2.IMREAD_COLOR).mean() for image in images]
    np.testing.assert_allclose(shades, (50, 200), atol=6)
    one = run(paths[:1], tmp_path / "one")
    assert one.output.suffix == ".png" and cv2.imread(str(one.output)).shape == (64, 128, 3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda at: [], "no file yet"),
        (lambda at: [at / "notes.txt"], "notes.txt is neither a video nor an image"),
        (lambda at: [at / "broken.mp4"], "broken.mp4"),
        (lambda at: [at / "list.mp4"], "list.mp4"),
        (lambda at: [at / "grey.mp4", at / "a.png"], "2 files with a video among them"),
        (lambda at: [at / "large.mp4"], "frames are 96x64.*4,096 pixels.*command line"),
    ],
)
def test_what_cannot_be_restored_is_explained(tmp_path, make, message):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 1000)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((16, 32, 3), np.uint8))
    film(tmp_path / "grey.mp4", (40, 80))
    film(tmp_path / "large.mp4", (40,), size=(96, 64))
    with pytest.raises(UserError, match=message):
        run(make(tmp_path), tmp_path / "job")


@pytest.mark.parametrize("frames", [0, 5])
def test_too_many_frames_are_refused(tmp_path, frames):
    source = film(tmp_path / "grey.mp4", (40, 80))
    with pytest.raises(UserError, match=f"{frames} frames.*1 to 4.*shorter part"):
        run([source], tmp_path / "job", frames=frames)


def test_a_model_by_path_is_refused(tmp_path):
    """A name is chosen from a list; nobody reads files of the server."""
    request = job.Request([str(tmp_path / "a.png")], "/etc/passwd")
    with pytest.raises(UserError, match="no model '/etc/passwd'"):
        job.run(request, tmp_path, LIMITS, lambda *_: None)


def test_old_files_are_removed_and_new_ones_kept(tmp_path):
    for name in ("jobs/a/film.mp4", "files/b/film.mp4", "jobs/c/film.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"film")
    hour_ago = time.time() - 3700
    for path in (tmp_path / "jobs/a", tmp_path / "files/b"):
        os.utime(path / "film.mp4", (hour_ago, hour_ago))
    job.Files(tmp_path).clean(older_than=3600)
    assert [path.name for path in (tmp_path / "jobs/c").iterdir()] == ["film.mp4"]
    left = [path for path in tmp_path.rglob("film.mp4")]
    assert left == [tmp_path / "jobs/c/film.mp4"]
    for folder in (tmp_path / "jobs/a", tmp_path / "files/b"):  # removed a turn later
        os.utime(folder, (hour_ago, hour_ago))
    job.Files(tmp_path).clean(older_than=3600)
    assert not (tmp_path / "jobs/a").exists() and (tmp_path / "jobs/c").exists()


def test_what_a_job_uses_is_kept_however_long_it_takes(tmp_path):
    """An hour passes after each frame, and nobody counts from before the end."""
    kept, uploads, folder = job.Files(tmp_path), tmp_path / "files", tmp_path / "jobs/a"
    for path in (uploads, folder):
        path.mkdir(parents=True)
    paths = [str(uploads / f"{index}.png") for index in range(4)]
    for path in paths:
        cv2.imwrite(path, np.full((16, 32, 3), 80, np.uint8))

    def an_hour_passes(*_):
        hour_ago = time.time() - 3700
        for path in tmp_path.rglob("*"):
            os.utime(path, (hour_ago, hour_ago), follow_symlinks=False)
        kept.clean(older_than=3600)

    with kept.in_use(folder, *paths):
        request = job.Request(paths, "edvr_tiny", frames=4)
        result = job.run(request, folder, LIMITS, an_hour_passes)
        an_hour_passes()
    kept.clean(older_than=3600)
    with zipfile.ZipFile(result.output) as archive:
        assert len(archive.namelist()) == 4
    an_hour_passes()
    an_hour_passes()  # folders go a turn after what was in them
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_upload_that_waited_too_long_is_asked_for_again(tmp_path):
    with pytest.raises(UserError, match="gone.mp4 waited too long.*Drop it once more"):
        run([tmp_path / "gone.mp4"], tmp_path / "job")


def test_only_what_restores_is_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path))
    for name in ("lpips_alex", "spynet_sintel", "ffdnet_color"):
        (tmp_path / catalogue.WEIGHTS[name].target).write_bytes(b"weights")
    assert job.model_names() == [name for name in catalogue.packaged() if name != "spynet"] + [
        "ffdnet_color"
    ]


def test_the_server_removes_old_files_while_it_runs_and_all_at_its_end(monkeypatch):
    page = pytest.importorskip("rvrt_jax.web.page")
    roots, left = [], []

    class Opened:
        def close(self):
            left.append(sorted(path.name for path in roots[0].iterdir()))

    def serve(kept, limits, **_):
        root = kept.root
        roots.append(root)
        for name, age in (("old.mp4", 3700), ("new.mp4", 3500)):
            (root / name).write_bytes(b"film")
            os.utime(root / name, (time.time() - age,) * 2)
        return Opened()

    def sleep(seconds):
        assert seconds <= 60
        if not (roots[0] / "old.mp4").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(page, "serve", serve)
    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["--port", "0"]) == 0
    assert left == [["new.mp4"]]
    assert not roots[0].exists()


def test_a_taken_port_is_named(capsys):
    pytest.importorskip("rvrt_jax.web.page")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"127.0.0.1:{port} cannot be opened" in capsys.readouterr().err


def test_a_machine_too_busy_to_start_is_told_from_a_taken_port(monkeypatch, capsys):
    page = pytest.importorskip("rvrt_jax.web.page")

    def serve(*_, **__):
        raise OSError("Cannot find empty port in range: 1-1.")

    monkeypatch.setattr(page, "serve", serve)
    assert main(["--port", "0"]) == 1
    assert re.search(
        r"at 127.0.0.1:[1-9]\d+ within .* busy.* Run it again", capsys.readouterr().err
    )


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "rvrt_jax.web.page", raising=False)
    monkeypatch.delattr(rvrt_jax.web, "page", raising=False)
    assert main(["--port", "1"]) == 1
    assert "pip install 'rvrt_jax[web]'" in capsys.readouterr().err
