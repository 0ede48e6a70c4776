"""A run's folder: who has it, what the run was started with, and what has changed since."""

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from rvrt_jax import files, models, parallel
from rvrt_jax.errors import UserError
from rvrt_jax.training import checkpoint
from rvrt_jax.weights.runs import CONFIG

LOCK = "lock"  # a file that tells who works here; locked as long as that process lives
VISIBLE_AFTER = 60.0  # seconds after which all hosts see a new file; NFS is up to 60 s behind

# What the structure of a checkpoint depends on, and what to do about a change.
STRUCTURE = {
    "ema_decay": "the running average exists in one of the two runs only",
    "batch_scale": "its steps are counted in batches of that size",
}


def config_changes(
    workdir: Path, config: Mapping[str, Any], *, compute_fields: Collection[str]
) -> list[str]:
    """Returns what differs from the run that `workdir` holds, if any, as "key: old -> new".

    compute_fields: of the network; these may change. So may options that were written by an older
    version and no longer exist. Raises UserError if the folder holds a run of another model, or
    its checkpoints do not fit this config.
    """
    path = workdir / CONFIG
    if not path.is_file() or not checkpoint.exists(workdir):
        return []
    old, new = _flatten(json.loads(path.read_text())), _flatten(_as_json(config))
    # A field that is younger than the run had its default there: no other network was there.
    younger = new.keys() - old.keys()
    for field, value in models.fields(models.build(config["model"]["name"])).items():
        if f"model.{field}" in younger and field not in compute_fields:
            old[f"model.{field}"] = _as_json({field: value})[field]
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    described = {
        key: f"{key}: {old.get(key)} -> {new.get(key, 'no such option')}" for key in changed
    }
    computing = {f"model.{field}" for field in compute_fields}
    other_model = [
        described[key]
        for key in changed
        if key.startswith("model.") and key in new and key not in computing
    ]
    if other_model:
        raise UserError(
            f"{workdir} holds a run of another model ({'; '.join(other_model)}). "
            "Pass another --workdir, or remove this one."
        )
    for key, reason in STRUCTURE.items():
        before, now = old.get(key), new.get(key)
        if key == "ema_decay":
            before, now = before or 0, now or 0  # how much is averaged may change
        if key == "batch_scale":
            before, now = before or 1, now or 1  # older runs had none
        if before != now and not (before and now and key == "ema_decay"):
            raise UserError(
                f"{workdir} holds a run with config.{key}={before}, not {now}, and cannot go on "
                f"with it: {reason}. Pass --config.{key}={before}, or another --workdir."
            )
    return list(described.values())


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it, as long as this process lives.

    Raises UserError if another run is at work there. The first host holds the lock.
    """
    if not parallel.is_first_host():
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    with path.open("a+") as file:  # not truncated: it may be another's
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use by another run ({file.read().strip()}). Wait for its end, "
                "stop it, or pass another --workdir."
            ) from None
        except OSError as error:
            logging.warning(
                "%s: this disk has no locks (%s), so that nothing keeps a second run out",
                path,
                error,
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield  # the file stays: a lock on a removed one would keep nobody out


def write_config(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json`, whole or not at all; the first host does."""
    if parallel.is_first_host():
        files.write_text(workdir / CONFIG, json.dumps(config, indent=2) + "\n")


def check_shared(workdir: Path) -> None:
    """Raises UserError on a host that does not see what the first one has put there.

    It is looked for again for `VISIBLE_AFTER` seconds: network disks may tell for so long that
    something does not exist which was made after this host last asked.
    """
    end = time.monotonic() + VISIBLE_AFTER
    while not _is_there(workdir / LOCK):
        if time.monotonic() > end:
            raise UserError(
                f"{workdir} does not show what host 0 has written there, after "
                f"{VISIBLE_AFTER:.0f} seconds. Pass a --workdir that all hosts share, such as a "
                "network disk."
            )
        _list_afresh(workdir)
        time.sleep(min(1.0, VISIBLE_AFTER))


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a stale handle: the folder was removed and made again
        return False


def _list_afresh(folder: Path) -> None:
    """Lists the folder, or the nearest one above it that exists: disks that cache look there."""
    for one in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            os.listdir(one)
            return


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config as it would be read back: tuples become lists."""
    return json.loads(json.dumps(config))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} of a nested dict."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
