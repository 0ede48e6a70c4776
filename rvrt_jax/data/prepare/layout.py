"""Finding a published set's clips in a download, and everything that is wrong with them."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rvrt_jax.data.prepare.download_tree import Tree
from rvrt_jax.data.published import DATASETS, Published, Split, expected
from rvrt_jax.errors import UserError
from rvrt_jax.media import images
from rvrt_jax.media.image_folders import natural_key

_SHOWN = 12  # problems of one kind that are listed
_PARTS = {"<clip>": "[^/]+", "<clip/clip>": "[^/]+/[^/]+", "<frame>": "[^/]+"}

Found = dict[str, dict[str, str]]  # path by clip and frame name


@dataclass(frozen=True)
class ClipFiles:
    """Paths of the frames of a clip, in order. lq: empty if there are none."""

    name: str
    gt: tuple[str, ...]
    lq: tuple[str, ...] = ()


def find(
    tree: Tree, name: str, *, lq: str | None, partial: bool = False
) -> dict[str, list[ClipFiles]]:
    """Returns the clips of each split of a published set.

    lq: kind of degraded frames to take along. partial: takes what is there where clips are missing.
    Raises UserError with all that is wrong: files not found or found twice, missing and short
    clips, wrong counts, LQ that does not go with GT. No image is opened.
    """
    data = DATASETS[name]
    problems: list[str] = []
    streams = {"gt": data.gt} if lq is None else {"gt": data.gt, "lq": data.lq[lq]}
    found = {key: _match(tree, data, paths, problems) for key, paths in streams.items()}
    for key, paths in streams.items():
        if not found[key]:
            problems.append(_nothing(tree, paths))
    if problems:
        raise report(name, tree.source, problems)

    splits = {}
    for split, wanted in data.splits.items():
        names = _names(tree, found["gt"], split, wanted, problems)
        clips = [_clip(key, found, problems) for key in names if key in found["gt"]]
        missing = [key for key in names if key not in found["gt"]]
        if not partial:
            _add(problems, f"{split}: no frames of", missing)
        if not partial or len(clips) > wanted.clips:
            _check_counts(split, wanted, clips, problems)
        _check_lengths(split, wanted, clips, problems)
        if clips:
            splits[split] = clips
    if not splits and not problems:
        problems.append("none of the clips found belongs to this set.")
    if problems:
        raise report(name, tree.source, problems)
    return splits


def report(name: str, source: Path, problems: list[str]) -> UserError:
    """Returns the error that lists everything found wrong with a download."""
    lines = "\n".join(f"  - {problem}" for problem in problems)
    return UserError(
        f"{DATASETS[name].title} cannot be prepared from {source}:\n{lines}\n"
        f"Expected: {expected(name)}. Nothing was written."
    )


def _match(tree: Tree, data: Published, paths: Iterable[str], problems: list[str]) -> Found:
    """Returns the images that lie where one of `paths` says."""
    patterns = [(_pattern(path), _offset(data, path)) for path in paths]
    found: Found = {}
    twice: dict[str, str] = {}
    for path in tree.files:
        for pattern, offset in patterns:
            match = pattern.search(path)
            if match is None:
                continue
            clip = match["clip"]
            if offset and clip.isdigit():
                clip = f"{int(clip) + offset:03d}"
            frames = found.setdefault(clip, {})
            other = frames.setdefault(match["frame"], path)
            if other != path:
                folder = str(PurePosixPath(other).parent)
                twice.setdefault(clip, f"{clip}, in {folder} and {PurePosixPath(path).parent}")
            break
    _add(problems, "found twice (move one copy away):", list(twice.values()))
    return found


def _pattern(path: str) -> re.Pattern[str]:
    suffixes = "|".join(re.escape(suffix) for suffix in images.IMAGE_SUFFIXES)
    text = re.sub(r"<(\w+)[^>]*>", lambda m: f"(?P<{m[1]}>{_PARTS[m[0]]})", re.escape(path))
    return re.compile(f"/{text}(?:{suffixes})$", re.IGNORECASE)


def _offset(data: Published, path: str) -> int:
    return next((offset for part, offset in data.renumber.items() if path.startswith(part)), 0)


def _nothing(tree: Tree, paths: Iterable[str]) -> str:
    text = f"no image lies where {' or '.join(paths)} says"
    folders = {
        str(PurePosixPath(path).parent) for path in tree.files if images.is_image(Path(path))
    }
    if folders:
        first = sorted(folders, key=natural_key)[0]
        text += f"; there are {len(folders)} folders of images, such as {first}. "
        text += "Give the folder above, or name the folders as expected"
    elif tree.unread:
        text += f"; unpack {tree.unread[0]} first (only .zip archives are looked into)"
    else:
        text += f"; there is no image among {len(tree.files)} files"
    return text + "."


def _names(
    tree: Tree, found: dict[str, dict[str, str]], split: str, wanted: Split, problems: list[str]
) -> list[str]:
    """Returns the clips that belong to a split, found or not, in natural order."""
    names = list(wanted.only) or [name for name in found if name not in wanted.without]
    if wanted.listed_in:
        lists = [path for path in tree.files if PurePosixPath(path).name == wanted.listed_in]
        if len(lists) != 1:
            problems.append(f"{split}: {len(lists)} files are called {wanted.listed_in}, not one.")
            return []
        names = tree.read(lists[0]).decode().split()
    return sorted(names, key=natural_key)


def _clip(name: str, found: dict[str, Found], problems: list[str]) -> ClipFiles:
    """Pairs GT with LQ in the order of their names."""
    ordered = {
        key: tuple(clips[name][frame] for frame in sorted(clips[name], key=natural_key))
        for key, clips in found.items()
        if name in clips
    }
    gt, lq = ordered["gt"], ordered.get("lq", ())
    if "lq" in found and len(gt) != len(lq):
        problems.append(f"{name}: {len(gt)} sharp, but {len(lq)} degraded frames.")
    return ClipFiles(name, gt, lq)


def _check_counts(split: str, wanted: Split, clips: list[ClipFiles], problems: list[str]) -> None:
    if len(clips) != wanted.clips:
        text = f", {clips[0].name} to {clips[-1].name}" if clips else ""
        remedy = "Fetch the rest, or pass --partial to do without."
        if len(clips) > wanted.clips:
            remedy = "Keep the clips of other sets elsewhere."
        problems.append(f"{split}: {len(clips)} clips{text}; {wanted.clips} are expected. {remedy}")
        return
    frames = sum(len(clip.gt) for clip in clips)
    if wanted.frames and frames != wanted.frames:
        problems.append(f"{split}: {frames} frames; {wanted.frames} are expected.")


def _check_lengths(split: str, wanted: Split, clips: list[ClipFiles], problems: list[str]) -> None:
    least = wanted.length or wanted.shortest
    most = wanted.length or math.inf
    wrong = [f"{clip.name} {len(clip.gt)}" for clip in clips if not least <= len(clip.gt) <= most]
    exact = f"{least}" if least == most else f"at least {least}"
    _add(problems, f"{split}: {exact} frames are expected, but there are in", wrong)


def _add(problems: list[str], text: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        problems.append(f"{text} {', '.join(names[:_SHOWN])}{more}.")
