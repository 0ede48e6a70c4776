"""The published data sets: where they come from, how their archives are laid out, what they hold.

The table is assets/published_sets.json; everything that prepares or names these sets reads it here.
Sources: recipes of the papers; the test clips of DVD are those its authors name
(github.com/shuochsu/DeepVideoDeblurring, issue 2), those of REDS are the usual REDS4.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rvrt_jax.data.clips import ASSETS

CLEAN = "clean"  # what a set prepared without degraded frames is called, instead of their kind


@dataclass(frozen=True)
class Split:
    """Which of the clips found belong to a split, and how many there must be; 0: not known."""

    clips: int
    frames: int = 0  # of all clips together
    length: int = 0  # frames of every clip, ...
    shortest: int = 1  # ... or at least so many
    only: tuple[str, ...] = ()  # names of clips
    without: tuple[str, ...] = ()
    listed_in: str = ""  # text file in the source with a name a line


@dataclass(frozen=True)
class Published:
    """A data set.

    In paths of frames <clip> stands for one folder's name, <clip/clip> for two, and <frame> for an
    image's name.
    """

    title: str
    source: str  # where it is offered, ...
    files: str  # ... and what to fetch there
    gt: tuple[str, ...]  # paths of the sharp frames in the archives, one of which fits
    splits: dict[str, Split]
    lq: dict[str, tuple[str, ...]] = field(default_factory=dict)  # degraded frames, by kind
    # Added to clip numbers in paths that contain a name: REDS counts its validation clips from 0.
    renumber: dict[str, int] = field(default_factory=dict)
    needs_lq: bool = False  # the set is about its degraded frames; else training makes them
    scale: int = 4  # GT size over LQ size


def _read(path: Path) -> dict[str, Published]:
    """Reads the table; a missing or unknown field is a TypeError, as it is our own file."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return {name: _published(**fields) for name, fields in table.items()}


def _published(*, splits: dict[str, dict[str, Any]], **fields: Any) -> Published:
    lq = {kind: tuple(paths) for kind, paths in fields.pop("lq", {}).items()}
    built = {name: Split(**_with_tuples(split)) for name, split in splits.items()}
    return Published(splits=built, lq=lq, **_with_tuples(fields))


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: lists become them."""
    return {key: tuple(x) if isinstance(x, list) else x for key, x in fields.items()}


DATASETS = _read(ASSETS / "published_sets.json")


def command(name: str, root: str) -> str:
    """Returns the command that prepares a set for a recipe whose data.root is `root`."""
    return f"python -m rvrt_jax.data.prepare {name} --source downloads/{name} --output {root}"


def instructions(name: str, root: str) -> str:
    """Says what a data set is, how to get it, where to put it and what prepares it."""
    data = DATASETS[name]
    return (
        f"{root}/{name} holds no prepared {data.title}. It has to be fetched by hand:\n"
        f"  1. from {data.source} fetch {data.files}\n"
        f"  2. put that, packed or unpacked, into downloads/{name}; expected in it:\n"
        f"     {expected(name)}\n"
        f"  3. run: {command(name, root)}\n"
        f"     ({counts(name)})"
    )


def expected(name: str) -> str:
    """Returns the paths looked for, in words."""
    data = DATASETS[name]
    texts = [f"{' or '.join(data.gt)} (images)"]
    if data.needs_lq:
        texts += [" or ".join(paths) for paths in data.lq.values()]
    texts += [split.listed_in for split in data.splits.values() if split.listed_in]
    return ", ".join(texts)


def counts(name: str) -> str:
    """Returns how many clips and frames each split has, in words."""
    texts = []
    for split, wanted in DATASETS[name].splits.items():
        frames = wanted.frames or wanted.clips * wanted.length
        text = f"{split}: {wanted.clips} clips" + (f" with {frames} frames" if frames else "")
        texts.append(text + (f", without {', '.join(wanted.without)}" if wanted.without else ""))
    return "; ".join(texts)
