"""Real training material from public packages: `python -m rvrt_jax.data.prepare real`.

assets/real_files.json lists it: files inside packages of public registries. Every file is named
with the SHA-256 of its bytes, so that another build of the same package serves as well, and a
changed file is noticed. What is listed there is trained on; nothing else of these packages is (the
clips used for validation and for reported results come from other files).

A prepared folder holds one uint8 array per scene, [t, h, w, 3], or photo, [h, w, 3], as .npy files
that training maps into memory, and manifest.json, which is written last: a folder with a manifest
is complete.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from rvrt_jax import files
from rvrt_jax.data.clips import ASSETS
from rvrt_jax.errors import UserError
from rvrt_jax.media.colour import untagged_matrix
from rvrt_jax.packages import COMMANDS, download, read_members

LISTING = ASSETS / "real_files.json"
MANIFEST = "manifest.json"
LONGEST_SIDE = 2000  # of a photo; at full size the sensor's noise and blur would be learnt


@dataclass(frozen=True)
class Package:
    """A package and how to get it."""

    index: str  # "pip", "npm" or "apt"
    requirement: str  # what the index is asked for
    pattern: str  # glob of the file that it comes in
    licence: str  # of its listed files, unless they say otherwise


@dataclass(frozen=True)
class Photo:
    """A photo in a package."""

    name: str
    package: str
    member: str
    sha256: str
    licence: str = ""  # where it differs from the package's
    credit: str = ""


@dataclass(frozen=True)
class Video:
    """A video in a package."""

    name: str
    package: str
    member: str
    sha256: str
    frames: int  # how many it decodes to
    shrink: int = 1  # integer factor of the box filter that removes the compression noise
    max_step: int = 1  # largest distance between frames used as neighbours, where motion is slow
    weight: float = 1.0  # how often it is drawn
    cuts: tuple[int, ...] = ()  # first frame of every scene but the first
    licence: str = ""  # where it differs from the package's
    credit: str = ""


@dataclass(frozen=True)
class Listing:
    """The packages by name, and the files in them that are trained on."""

    packages: dict[str, Package]
    videos: tuple[Video, ...]
    photos: tuple[Photo, ...]

    @classmethod
    def read(cls, path: Path) -> "Listing":
        """Reads a JSON file; a missing or unknown field is a TypeError, as it is our own file."""
        table = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            {name: Package(**fields) for name, fields in table["packages"].items()},
            tuple(
                Video(**{**fields, "cuts": tuple(fields.get("cuts", ()))})
                for fields in table["videos"]
            ),
            tuple(Photo(**fields) for fields in table["photos"]),
        )


def real(output: Path, *, source: Path | None = None, skip: Sequence[str] = ()) -> None:
    """Fetches and prepares the real video and photos that assets/real_files.json lists.

    source: folder with packages fetched before; what it lacks is fetched into it. Without it, the
    packages go to output/packages, which is removed at the end.
    skip: packages to leave out.
    Raises UserError that names every package that could not be fetched, or the file that is wrong.
    """
    listing = Listing.read(LISTING)
    packages = listing.packages
    unknown = set(skip) - set(packages)
    if unknown:
        raise UserError(f"--skip: no package {sorted(unknown)}. There are {', '.join(packages)}.")
    folder = source or output / "packages"
    fetched = fetch({name: packages[name] for name in packages if name not in skip}, folder)
    output.mkdir(parents=True, exist_ok=True)
    (output / MANIFEST).unlink(missing_ok=True)
    entries = []
    for name, file in fetched.items():
        package = packages[name]
        items = [item for item in (*listing.videos, *listing.photos) if item.package == name]
        members = dict(read_members(file, [item.member for item in items]))
        for item in items:
            check(item, members.get(item.member), file, package)
            arrays = decode(item, members[item.member])
            entries += [save(output, key, array, item, package) for key, array in arrays.items()]
            print(f"{item.package}: {item.name}", flush=True)
    entries.sort(key=lambda entry: entry["name"])
    write_manifest(output, entries)
    if source is None:
        shutil.rmtree(folder)
    clips = [entry for entry in entries if entry["kind"] == "clip"]
    frames = sum(entry["frames"] for entry in clips)
    print(f"{output}: {len(clips)} clips ({frames} frames), {len(entries) - len(clips)} photos")


def fetch(packages: dict[str, Package], folder: Path) -> dict[str, Path]:
    """Returns {package: file} of the packages in `folder`; downloads those that are not there.

    Raises UserError with what is missing, the commands to run by hand, and where the files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, missing = {}, []
    for name, package in packages.items():
        if not sorted(folder.glob(package.pattern)):
            print(f"fetching {package.requirement} ({package.index})", flush=True)
            reason = download(package.index, package.requirement, folder)
            if reason:
                command = " ".join([*COMMANDS[package.index], package.requirement])
                missing.append(f"  {name}: {reason}\n    by hand: {command}")
                continue
        matching = sorted(folder.glob(package.pattern))
        if not matching:
            missing.append(f"  {name}: the download left no {package.pattern}")
        else:
            found[name] = matching[-1]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(packages)} packages could not be fetched:\n"
            + "\n".join(missing)
            + f"\nPut the files into {folder} (Debian packages are also at "
            "https://packages.debian.org/bookworm/NAME) and run this again with "
            f"--source {folder}, or leave packages out with --skip NAME."
        )
    return found


def check(item: Photo | Video, content: bytes | None, file: Path, package: Package) -> None:
    """Raises UserError unless the member is there and is the one that was looked at."""
    if content is None:
        raise UserError(
            f"{file.name} holds no {item.member}. Fetch {package.requirement}, or "
            f"leave it out with --skip {item.package}."
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != item.sha256:
        raise UserError(
            f"{item.member} in {file.name} has SHA-256 {digest[:12]}…, expected "
            f"{item.sha256[:12]}…. Fetch {package.requirement}, or leave it out "
            f"with --skip {item.package}."
        )


def decode(item: Photo | Video, content: bytes) -> dict[str, np.ndarray]:
    """Returns {name: uint8 array}: one [h, w, 3] of a photo, one [t, h, w, 3] per scene."""
    if isinstance(item, Photo):
        return {item.name: decode_photo(content)}
    frames = decode_video(content, shrink=item.shrink)
    if len(frames) != item.frames:
        raise UserError(f"{item.member} decoded to {len(frames)} frames, expected {item.frames}.")
    if not item.cuts:
        return {item.name: frames}
    return {f"{item.name}_{i}": scene for i, scene in enumerate(np.split(frames, item.cuts))}


def decode_photo(content: bytes) -> np.ndarray:
    """Decodes an image file to [h, w, 3] uint8 RGB, the longer side at most LONGEST_SIDE."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError("a photo could not be decoded; the installed OpenCV lacks its format.")
    h, w = image.shape[:2]
    factor = LONGEST_SIDE / max(h, w)
    if factor < 1:
        size = (round(w * factor), round(h * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_video(content: bytes, *, shrink: int = 1) -> np.ndarray:
    """Decodes a video file to [t, h, w, 3] uint8 RGB, box-filtered by an integer factor.

    Converts with FFmpeg's default flags, unlike `VideoReader`: trained networks have seen these
    very pixels, and the more accurate ones differ by up to 3 levels.
    """
    frames = []
    with av.open(io.BytesIO(content), mode="r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            image = frame.to_ndarray(format="rgb24", src_colorspace=untagged_matrix(frame))
            if shrink > 1:
                h, w = image.shape[0] // shrink, image.shape[1] // shrink
                image = image[: h * shrink, : w * shrink]
                image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
            frames.append(image)
    return np.stack(frames)


def save(
    output: Path, name: str, array: np.ndarray, item: Photo | Video, package: Package
) -> dict[str, Any]:
    """Writes output/<name>.npy and returns its entry of the manifest."""
    path = output / f"{name}.npy"
    with files.replacing(path) as partial:
        np.save(partial, array)
    clip = array.ndim == 4
    return {
        "name": name,
        "kind": "clip" if clip else "photo",
        "file": path.name,
        "frames": len(array) if clip else 1,
        "height": array.shape[-3],
        "width": array.shape[-2],
        "max_step": item.max_step if isinstance(item, Video) else 1,
        "weight": item.weight if isinstance(item, Video) else 1.0,
        "package": package.requirement,
        "member": item.member,
        "licence": item.licence or package.licence,
        "credit": item.credit,
        "sha256": hashlib.sha256(array.data).hexdigest(),
    }


def write_manifest(output: Path, entries: list[dict]) -> None:
    """Writes manifest.json, which makes the folder a complete data set."""
    text = json.dumps({"entries": entries}, indent=1, ensure_ascii=False)
    files.write_text(output / MANIFEST, text + "\n")
