"""What samples are drawn from: finding it, and checking that it fits the options."""

from collections.abc import Sequence
from dataclasses import dataclass

from rvrt_jax.data import camera, clips, plain, published, records
from rvrt_jax.data.clips import SourceClip
from rvrt_jax.data.options import GIVEN, HELD_OUT, MOTION_BLUR, DataOptions
from rvrt_jax.errors import UserError

_SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Pair:
    """A clip and its degraded version, frame by frame; lq is None if that is made of gt."""

    gt: SourceClip
    lq: SourceClip | None = None


def load(options: DataOptions) -> tuple[list[Pair], list[SourceClip]]:
    """Returns (clips, photos) to train on.

    Raises UserError, before any frame is decoded, if the data is missing or broken, and naming
    the clips that are too short or too small for the options or whose LQ does not go with its GT.
    """
    photos: Sequence[SourceClip] = []
    if options.dataset == "real":
        videos, photos = clips.load_prepared(options.root)
        pairs = [Pair(clip) for clip in videos]
    else:
        if options.photo_fraction:
            raise UserError(
                f"data.photo_fraction is {options.photo_fraction}, but there are photos only in "
                "the dataset 'real'. Set it to 0."
            )
        pairs = find(options.dataset, options.root, options.lq_root, split="train", options=options)
    pairs = [pair for pair in pairs if pair.gt.name not in options.exclude]
    held = {pair.gt.name for pair in _held_out_pairs(pairs, options)}
    pairs = [pair for pair in pairs if pair.gt.name not in held]
    photos = [photo for photo in photos if photo.name not in options.exclude]
    if options.photo_fraction < 1:
        check(pairs, options, where=options.root)
    if options.photo_fraction > 0:
        border = 2 * options.margin + 2 * camera.BORDER
        _check_size(photos, options.gt_size + border, options, where=options.root)
    return (
        pairs if options.photo_fraction < 1 else [],
        list(photos) if options.photo_fraction > 0 else [],
    )


def held_out(options: DataOptions) -> list[Pair]:
    """Returns the training clips to validate on, which `load` leaves out.

    They are those of `validation_names`, or `validation_clips` from first to last.
    """
    if options.dataset == "real":
        pairs = [Pair(clip) for clip in clips.load_prepared(options.root)[0]]
    else:
        pairs = find(options.dataset, options.root, options.lq_root, split="train", options=options)
    pairs = [pair for pair in pairs if pair.gt.name not in options.exclude]
    return _held_out_pairs(pairs, options)


def _held_out_pairs(pairs: list[Pair], options: DataOptions) -> list[Pair]:
    if options.validation_dataset != HELD_OUT:
        return []
    if options.validation_names:
        return _named(pairs, options.validation_names, options.root)
    if options.validation_clips >= len(pairs):
        raise UserError(
            f"data.validation_clips is {options.validation_clips}, and {options.root} has "
            f"{len(pairs)} clips: none would be left to train on. Hold fewer out."
        )
    return evenly(pairs, options.validation_clips)


def evenly(items: list, count: int) -> list:
    """Returns `count` items from first to last; all of them if it is 0."""
    if not 0 < count < len(items):
        return items
    return [items[k * len(items) // count] for k in range(count)]


def find(dataset: str, root: str, lq_root: str, *, split: str, options: DataOptions) -> list[Pair]:
    """Returns the clips of a published set or of plain folders, with LQ where it is given."""
    given = options.degradation == GIVEN
    if dataset == "own":
        gt = plain.find(root)
        return _paired(gt, plain.find(lq_root), root, lq_root) if given else [Pair(x) for x in gt]
    scale = published.DATASETS[dataset].scale
    if given and scale != options.scale:
        raise UserError(
            f"the degraded frames of {dataset} are for scale {scale}, but data.scale is "
            f"{options.scale}."
        )
    return [Pair(*pair) for pair in records.load(root, dataset, split, lq=given)]


def _named(pairs: Sequence[Pair], names: Sequence[str], root: str) -> list[Pair]:
    """Returns the clips of these names, in their order."""
    known = {pair.gt.name: pair for pair in pairs}
    if missing := [name for name in names if name not in known]:
        raise UserError(
            f"data.validation_names has {_names(missing)}; the clips in {root} are "
            f"{_names(sorted(known))}."
        )
    return [known[name] for name in names]


def check(pairs: Sequence[Pair], options: DataOptions, *, where: str) -> None:
    """Raises UserError naming the clips that do not fit the options."""
    exposure = options.blur_frames - 1 if options.degradation == MOTION_BLUR else 0
    needed = options.num_frames + exposure
    short = [pair.gt.name for pair in pairs if pair.gt.frames < needed]
    if short:
        raise UserError(
            f"{_names(short)} in {where} have fewer than num_frames = {options.num_frames} "
            f"{f'and blur_frames - 1 = {exposure} ' if exposure else ''}"
            "frames. Lower num_frames or put the names into exclude."
        )
    smallest = options.gt_size + options.scale - 1
    _check_size([pair.gt for pair in pairs], smallest, options, where=where)
    for pair in pairs:
        if pair.lq is not None:
            check_pair(pair.gt, pair.lq, options)


def check_pair(gt: SourceClip, lq: SourceClip, options: DataOptions) -> None:
    """Raises UserError if the degraded clip does not go with the sharp one."""
    if gt.frames != lq.frames:
        raise UserError(f"{gt.name} has {gt.frames} sharp, but {lq.frames} degraded frames.")
    expected = gt.height // options.scale, gt.width // options.scale
    if (lq.height, lq.width) != expected:
        raise UserError(
            f"{gt.name} is {gt.width}x{gt.height}, its degraded version {lq.width}x{lq.height}; "
            f"with scale {options.scale} it must be {expected[1]}x{expected[0]}."
        )


def _check_size(
    items: Sequence[SourceClip], smallest: int, options: DataOptions, *, where: str
) -> None:
    if not items:
        raise UserError(
            f"{where} has no clips or photos left to draw from; change exclude or "
            f"photo_fraction = {options.photo_fraction}."
        )
    small = [item.name for item in items if min(item.height, item.width) < smallest]
    if small:
        raise UserError(
            f"{_names(small)} in {where} are smaller than {smallest} pixels, which gt_size "
            f"{options.gt_size} needs. Lower gt_size or put the names into exclude."
        )


def _paired(gt: list[SourceClip], lq: list[SourceClip], root: str, lq_root: str) -> list[Pair]:
    """Pairs clips by name, or one with one."""
    if len(gt) == len(lq) == 1:
        return [Pair(gt[0], lq[0])]
    by_name = {clip.name: clip for clip in lq}
    names = {clip.name for clip in gt}
    lonely = [f"{root}/{name}" for name in sorted(names - set(by_name))]
    lonely += [f"{lq_root}/{name}" for name in sorted(set(by_name) - names)]
    if lonely:
        raise UserError(
            f"{_names(lonely)} have no counterpart of the same name. Name sharp and degraded "
            "clips alike."
        )
    return [Pair(clip, by_name[clip.name]) for clip in gt]


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{list(names[:_SHOWN])}{more}"
