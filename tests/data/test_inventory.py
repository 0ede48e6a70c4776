"""What plain folders hold is looked at once, and again where a file has changed."""

import json
import os

import cv2
import numpy as np
import pytest
from helpers import films

from rvrt_jax.data import inventory, plain
from rvrt_jax.errors import UserError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "folder", lambda: tmp_path / "cache" / "clips")
    for name in ("a", "b"):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        for k in range(3):
            cv2.imwrite(str(folder / f"{k}.png"), np.full((8, 12, 3), 40 * k, np.uint8))
    films.make(tmp_path / "clips/film.mkv", films.noise(4))
    return tmp_path / "clips"


@pytest.fixture
def opened(monkeypatch):
    """Names of the clips whose files were looked at."""
    names, open_frames = [], plain.open_frames

    def noting(path):
        names.append(path.name)
        return open_frames(path)

    monkeypatch.setattr(plain, "open_frames", noting)
    return names


def test_clips_are_looked_at_once(root, opened):
    first = plain.find(root)
    assert sorted(opened) == ["a", "b", "film.mkv"]
    opened.clear()
    assert plain.find(root) == first and opened == []
    np.testing.assert_array_equal(plain.find(root)[0].read(0, 3)[2], np.full((8, 12, 3), 80))


def test_a_changed_clip_is_looked_at_again(root, opened):
    plain.find(root)
    opened.clear()
    cv2.imwrite(str(root / "a" / "3.png"), np.zeros((8, 12, 3), np.uint8))
    assert [clip.frames for clip in plain.find(root)] == [4, 3, 4] and opened == ["a"]
    opened.clear()
    os.utime(root / "b" / "1.png", ns=(1, 1))
    plain.find(root)
    assert opened == ["b"]
    opened.clear()
    (root / "film.mkv").write_bytes(b"broken")
    for _ in range(2):  # what cannot be used is not remembered
        with pytest.raises(UserError, match="1 clips cannot be used"):
            plain.find(root)
    assert opened == ["film.mkv", "film.mkv"]


def test_a_damaged_or_read_only_cache_costs_time_alone(root, opened, caplog, monkeypatch):
    plain.find(root)
    (kept,) = (root.parent / "cache" / "clips").iterdir()
    kept.write_text("{")
    opened.clear()
    with caplog.at_level("WARNING"):
        assert len(plain.find(root)) == 3
    assert len(opened) == 3 and "clips are read again" in caplog.text
    monkeypatch.setattr(inventory, "folder", lambda: root / "film.mkv" / "clips")  # no folder
    caplog.clear()
    with caplog.at_level("WARNING"):
        assert len(plain.find(root)) == 3
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("name", [".#0.png", "notes", "0.tmp"])
def test_a_link_that_leads_nowhere_is_no_frame(root, opened, name):
    link = root / "a" / name
    link.symlink_to("user@host.123")
    first = plain.find(root)
    assert [clip.frames for clip in first] == [3, 3, 4]
    opened.clear()
    assert plain.find(root) == first and opened == []
    link.unlink()
    link.symlink_to(link.name)  # round and round
    assert plain.find(root) == first and opened == ["a"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: {},
        lambda kept: [1],
        lambda kept: None,
        lambda kept: {"version": kept["version"]},
        lambda kept: kept | {"clips": [1]},
        lambda kept: kept | {"clips": dict.fromkeys(kept["clips"], 3)},
        lambda kept: kept | {"clips": dict.fromkeys(kept["clips"], ["a"])},
        lambda kept: kept | {"clips": {k: [v[0], {}] for k, v in kept["clips"].items()}},
        lambda kept: (
            kept | {"clips": {k: [v[0], v[1] | {"files": [1]}] for k, v in kept["clips"].items()}}
        ),
    ],
)
def test_a_cache_that_is_no_inventory_costs_time_alone(root, opened, spoil):
    first = plain.find(root)
    (path,) = (root.parent / "cache" / "clips").iterdir()
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    opened.clear()
    assert plain.find(root) == first and len(opened) == 3
    opened.clear()
    assert plain.find(root) == first and opened == []  # it was written anew
