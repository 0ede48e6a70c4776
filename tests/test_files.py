"""Outputs: whole or not at all, never in the place of an input, nothing left by a dead run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rvrt_jax import files
from rvrt_jax.errors import UserError

HOLD = str(Path(__file__).parent / "helpers" / "hold_output.py")


@pytest.fixture
def frames(tmp_path):
    """A folder of three images, which are the inputs; names by which it can be reached."""
    folder = tmp_path / "deep/frames"
    folder.mkdir(parents=True)
    for name in ("1.png", "2.png", "3.png"):
        (folder / name).write_text(name)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "deep/hard.png").hardlink_to(folder / "2.png")
    (tmp_path / "deep/soft.png").symlink_to(folder / "2.png")
    return folder


SPELLINGS = {
    "the folder": "deep/frames",
    "a slash at its end": "deep/frames/",
    "dots": "deep/../deep/./frames",
    "a link": "link",
    "a folder above": "deep",
    "the file": "deep/frames/2.png",
    "the file through a link": "link/2.png",
    "a link to the file": "deep/soft.png",
    "a hard link": "deep/hard.png",
}


@pytest.mark.parametrize("output", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_spelling_of_an_input_can_be_an_output(
    frames, tmp_path, monkeypatch, output, relative, overwrite
):
    monkeypatch.chdir(tmp_path)
    output = output if relative else f"{tmp_path}/{output}"
    for inputs in ([frames / "2.png"], [tmp_path / "link/2.png"], sorted(frames.iterdir())):
        with pytest.raises(UserError, match="is an input or holds one"):
            files.check_outputs([output], inputs=inputs, overwrite=overwrite)


def test_a_folder_whose_files_are_inputs_by_another_name_is_kept(frames, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "9.png").symlink_to(frames / "2.png")
    with pytest.raises(UserError, match="would replace"):
        files.check_outputs([out], inputs=[frames / "2.png"], overwrite=True)
    files.check_outputs([out], inputs=[frames / "1.png"], overwrite=True)


def test_what_replaces_no_input_is_free(frames, tmp_path):
    (tmp_path / "old").write_text("")
    new = [tmp_path / "new", frames / "4.png", frames / "restored/x.mp4"]
    files.check_outputs(new, inputs=frames.iterdir(), overwrite=False)
    files.check_outputs([tmp_path / "old"], inputs=frames.iterdir(), overwrite=True)
    with pytest.raises(UserError, match="old exists"):
        files.check_outputs([tmp_path / "old"], inputs=[], overwrite=False)
    with pytest.raises(UserError, match="are the same output"):
        files.check_outputs([tmp_path / "a", tmp_path / "x/../a"], inputs=[], overwrite=True)


@pytest.mark.parametrize("folder", [False, True])
def test_a_new_one_appears_whole_or_not_at_all(tmp_path, folder):
    target = tmp_path / "out.x"

    def write(text, *, fail=False):
        with files.replacing(target, folder=folder) as partial:
            assert partial.suffix == ".x" and partial.parent == tmp_path
            (partial / "file" if folder else partial).write_text(text)
            if fail:
                raise KeyboardInterrupt

    def content():
        return (target / "file" if folder else target).read_text()

    with pytest.raises(KeyboardInterrupt):
        write("one", fail=True)
    assert not list(tmp_path.iterdir())
    write("two")
    with pytest.raises(KeyboardInterrupt):
        write("three", fail=True)
    assert content() == "two"
    write("four")
    assert content() == "four" and list(tmp_path.iterdir()) == [target]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with files.replacing(tmp_path / "out", folder=True) as partial:
        (partial / "1.png").write_text("")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk/1.png").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path, kind):
    target = tmp_path / "out.x"
    command = [sys.executable, HOLD, str(target), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        files.write_text(target, "mine")
        left = [path for path in tmp_path.iterdir() if path != target]
        assert len(left) == 1 and ".part" in left[0].name
        process.send_signal(signal.SIGKILL)
    files.write_text(target, "again")
    assert [path.name for path in tmp_path.iterdir()] == ["out.x"]


def test_a_result_set_aside_by_a_process_that_was_killed_comes_back(tmp_path):
    (tmp_path / ".out.0123abcd.old").mkdir()
    (tmp_path / ".out.0123abcd.old/1.png").write_text("before")
    files.clean(tmp_path / "out")
    assert (tmp_path / "out/1.png").read_text() == "before"
    assert os.listdir(tmp_path) == ["out"]


def test_other_hidden_files_stay(tmp_path):
    names = [".out.part", ".out.notes.part", ".other.0123abcd.part", ".out.0123abcd.part.mkv"]
    for name in names:
        Path(tmp_path / name).touch()
    files.clean(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted(names)
