"""A run's folder as several hosts see it."""

import os
from pathlib import Path

import pytest

from rvrt_jax.errors import UserError
from rvrt_jax.training import checkpoint, run_folder


def test_a_new_folder_is_seen_once_its_disk_has_been_asked_again(tmp_path, monkeypatch):
    """As on NFS, where what was looked for in vain stays hidden until the folder above is read."""
    workdir, before = tmp_path / "runs" / "one", os.listdir

    def listing(folder):
        if Path(folder) == tmp_path:
            workdir.mkdir(parents=True, exist_ok=True)
            (workdir / run_folder.LOCK).touch()
        return before(folder)

    assert not checkpoint.exists(workdir)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="does not show what host"):
        patch.setattr(run_folder, "VISIBLE_AFTER", 0.1)
        run_folder.check_shared(workdir)
    monkeypatch.setattr(os, "listdir", listing)
    run_folder.check_shared(workdir)


def test_checkpoints_are_looked_for_without_asking_for_their_folder(tmp_path, monkeypatch):
    """Asked for by its name, a network disk would hide it for a while once it is there."""
    asked = []
    for name in ("stat", "scandir"):
        before = getattr(os, name)

        def asking(path=".", *arguments, before=before, **options):
            asked.append(Path(path).name)
            return before(path, *arguments, **options)

        monkeypatch.setattr(os, name, asking)
    assert not checkpoint.exists(tmp_path) and checkpoint.steps(tmp_path) == []
    assert "checkpoints" not in asked
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.exists(tmp_path) and checkpoint.steps(tmp_path) == [3]
