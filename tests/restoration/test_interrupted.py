"""A restoration that is stopped, however, goes on with the same call, to the same result."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import films

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Runs `interrupted` on a film with sound; returns what it printed, and stderr."""
    cache = tmp_path_factory.mktemp("cache")
    environment = os.environ | {
        "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run(source, *moments):
        command = [sys.executable, TESTS / "helpers/interrupted.py", source, *moments]
        done = subprocess.run(
            list(map(str, command)), env=environment, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return films.film(tmp_path_factory.mktemp("film") / "in.mp4", count=25, chapters=True)


def content(path):
    """Returns decoded frames, packets of the other streams, times and tags."""
    with av.open(str(path)) as container:
        kinds = [(s.type, s.codec_context and s.codec_context.name) for s in container.streams]
        tags, chapters = dict(container.metadata), container.chapters()
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return frames, films.times(path), films.packets(path, "audio"), kinds, tags, chapters


def assert_same(path, other):
    (frames, *rest), (others, *expected) = content(path), content(other)
    np.testing.assert_array_equal(frames, others)
    assert rest == expected


@pytest.fixture(scope="module")
def whole(program, film, tmp_path_factory):
    """The result of a run that nothing stops, and how many moments there are to stop it."""
    output = tmp_path_factory.mktemp("whole") / "out.mp4"
    counted, _ = program(film, output, "count")
    assert counted[-1] == {"code": 0}
    assert os.listdir(output.parent) == ["out.mp4"]
    return output, counted[0]["events"]


def test_killed_at_twenty_moments(program, film, whole, tmp_path):
    """From the first to the last: nothing is half-written, and the next start ends the work."""
    expected, events = whole
    assert events > 20
    moments = np.linspace(1, events, 20).round().astype(int)
    outputs = [tmp_path / str(at) / "out.mp4" for at in moments]
    for output in outputs:
        output.parent.mkdir()
    killed = zip(outputs, [f"SIGKILL@{at}" for at in moments], strict=True)
    codes, _ = program(film, *itertools.chain.from_iterable(killed))
    assert codes == [{"code": -9}] * 20
    for output in filter(Path.exists, outputs):  # killed after the result took its name
        assert_same(output, expected)
        output.unlink()
    codes, err = program(film, *itertools.chain.from_iterable((each, "run") for each in outputs))
    assert codes == [{"code": 0}] * 20, err
    assert err.count("going on after") >= 8
    for output in outputs:
        assert_same(output, expected)
        assert os.listdir(output.parent) == ["out.mp4"], output


def test_killed_again_and_again_it_gets_there(program, film, whole, tmp_path):
    """Each start gets some way further; once the output is there, others leave it alone."""
    expected, events = whole
    output = tmp_path / "out.mp4"
    codes, _ = program(film, *[output, f"SIGKILL@{events // 2}"] * 8, output, "run")
    assert codes[0] == codes[1] == {"code": -9} and codes[-1]["code"] in (0, 1)
    assert_same(output, expected)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stopped_by_a_signal(program, film, whole, tmp_path, name):
    expected, events = whole
    output = tmp_path / "out.mp4"
    (stopped,), err = program(film, output, f"{name}@{events * 2 // 3}")
    assert stopped == {"code": 130}
    assert "frames are kept" in err and "the same command goes on" in err and "Traceback" not in err
    left = sorted(path.name for path in (tmp_path / "out.mp4.part").iterdir())
    assert left[-1] == "journal.json" and all(name.endswith(".mkv") for name in left[:-1])
    codes, err = program(film, output, "run")
    assert codes == [{"code": 0}] and "going on after" in err
    assert_same(output, expected)
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_signals_at_any_moment_stop_it(program, film, whole, tmp_path):
    """Nothing hangs, and nothing but the journal stays."""
    _, events = whole
    moments = np.linspace(1, events - 1, 20).round().astype(int)
    outputs = [tmp_path / str(at) / "out.mp4" for at in moments]
    for output in outputs:
        output.parent.mkdir()
    stops = zip(outputs, [f"SIGTERM@{at}" for at in moments], strict=True)
    codes, err = program(film, *itertools.chain.from_iterable(stops))
    assert {one["code"] for one in codes} <= {0, 130} and "Traceback" not in err
    assert "no segment was finished, so no frame is kept" in err  # of the first of them
    for output, one in zip(outputs, codes, strict=True):
        left = {path.name for path in output.parent.iterdir()}
        assert left == {"out.mp4"} if one["code"] == 0 else left <= {"out.mp4", "out.mp4.part"}


def test_a_full_disk(program, film, whole, tmp_path):
    expected, _ = whole
    output = tmp_path / "out.mp4"
    (full,), err = program(film, output, f"full@{expected.stat().st_size * 2 // 3}")
    assert full == {"code": 1} and "Traceback" not in err and not output.exists()
    assert err.splitlines()[-1].startswith("error: ")
    codes, _ = program(film, output, "run")
    assert codes == [{"code": 0}]
    assert_same(output, expected)


def test_a_broken_packet_late_in_the_file(program, film, whole, tmp_path):
    """What comes before it is kept; a whole copy of the file is another input, and refused."""
    broken = tmp_path / "in.mp4"
    data = bytearray(film.read_bytes())
    with av.open(str(film)) as container:
        packets = [p for p in container.demux(video=0) if p.size and p.pos is not None]
        late = packets[20]
    data[late.pos + 8 : late.pos + late.size] = bytes(late.size - 8)
    broken.write_bytes(data)
    output = tmp_path / "out.mp4"
    (failed,), err = program(broken, output, "run")
    assert failed == {"code": 1} and "is damaged" in err and "frames are kept" in err
    assert not output.exists()
    kept = broken.rename(tmp_path / "kept.mp4")
    shutil.copy(film, broken)
    (refused,), err = program(broken, output, "run")
    assert refused == {"code": 1} and "differs in input" in err and "--overwrite" in err
    kept.replace(broken)
    again = tmp_path / "again.mp4"
    codes, err = program(broken, output, "skip", again, "skip")
    assert codes == [{"code": 0}] * 2 and "going on after" in err
    assert_same(output, again)
    assert 20 <= len(content(output)[0]) <= 24
