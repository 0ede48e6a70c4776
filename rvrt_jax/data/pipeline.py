"""The training input: endless batches of {"lq", "gt"}, made from (seed, index) alone.

A sample is a crop of real video, as filmed or seen by a virtual camera, or a photo under a virtual
camera with, sometimes, a second layer before it. LR frames are made on the fly and rounded to 8
bit, as LR files on disk would be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import grain
import numpy as np

from rvrt_jax.data import clips, motion
from rvrt_jax.data.augment import augment
from rvrt_jax.data.clips import Clip
from rvrt_jax.data.degrade import DEGRADATIONS, mod_crop
from rvrt_jax.errors import UserError

SAMPLES = 2**31  # of an epoch: training never sees its end


@dataclass(frozen=True)
class Options:
    """What a recipe may say about its data; the meaning of `config.data`.

    root: folder written by rvrt_jax.data.prepare. exclude: names of clips and photos to leave out.
    num_frames, gt_size: of a sample, in frames and pixels of the ground truth.
    scale, degradation: "bicubic" or "blur_down" (scale 4).
    photo_fraction: samples made from photos. camera_fraction: video samples seen by a virtual
    camera. parallax_fraction: photo samples with a second layer.
    max_speed: of the virtual camera, in LR pixels a frame. max_zoom: how far a source is shrunk.
    reverse_fraction: samples played backwards. tries: places drawn for each sample, of which the
    one with the most detail and motion is taken.
    num_workers: worker processes; 0 = num_threads threads. prefetch: samples made ahead.
    validation_root: folder of folders of PNGs; "" = the clips of the package.
    """

    root: str = "data/real"
    exclude: tuple[str, ...] = ()
    num_frames: int = 6
    gt_size: int = 128
    scale: int = 4
    degradation: str = "bicubic"
    photo_fraction: float = 0.5
    camera_fraction: float = 0.5
    parallax_fraction: float = 0.3
    max_speed: float = 4.0
    max_zoom: float = 2.5
    reverse_fraction: float = 0.5
    tries: int = 3
    num_workers: int = 0
    num_threads: int = 2
    prefetch: int = 16
    validation_root: str = ""

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Options":
        """Builds options from a mapping; raises UserError on an unknown key or a bad value."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise UserError(f"data has no option {unknown}. There are {sorted(known)}.")
        options = cls(**{**config, "exclude": tuple(config.get("exclude", ()))})
        if options.degradation not in DEGRADATIONS:
            raise UserError(
                f"degradation is {options.degradation!r}; there are {sorted(DEGRADATIONS)}."
            )
        if options.gt_size % options.scale:
            raise UserError(
                f"gt_size is {options.gt_size}, not a multiple of scale {options.scale}."
            )
        return options

    @property
    def margin(self) -> int:
        """GT pixels round a crop that reach into its LR: 2 LR pixels, at least half a kernel."""
        return 2 * self.scale


def train(
    config: Mapping[str, Any],
    *,
    seed: int,
    batch_size: int,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.IterDataset:
    """Returns an endless dataset of batches; its iterators' state can be saved and restored.

    config: see Options. batch_size: of this shard. Shards of the same seed share no sample.
    Batches hold float32 in [0, 1]: lq [b, t, gt_size/scale, gt_size/scale, 3] and
    gt [b, t, gt_size, gt_size, 3].
    Raises UserError before the first batch if the data is missing or does not fit the options.
    """
    options = Options.read(config)
    dataset = (
        grain.MapDataset.range(SAMPLES)[shard_index::shard_count]
        .map(Sampler(options, seed))
        .batch(batch_size, drop_remainder=True)
    )
    if options.num_workers:
        # The threads of a worker make whole batches; more than one would only hold more of them.
        batches = max(1, options.prefetch // batch_size)
        return dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        ).mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=options.num_workers, per_worker_buffer_size=batches
            )
        )
    return dataset.to_iter_dataset(
        grain.ReadOptions(
            num_threads=options.num_threads,
            prefetch_buffer_size=max(options.num_threads, options.prefetch // batch_size),
        )
    )


def validation(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the validation clips as [{"name", "lq", "gt"}], uint8 [t, h, w, 3] each.

    config: see Options. The clips come whole, cut to a multiple of the scale.
    """
    options = Options.read(config)
    degrade = DEGRADATIONS[options.degradation]
    result = []
    for name, frames in clips.load_folders(options.validation_root or clips.BUNDLED).items():
        gt = mod_crop(frames, options.scale)
        result.append({"name": name, "lq": degrade(gt, options.scale), "gt": gt})
    return result


class Sampler(grain.transforms.Map):
    """Makes sample number `index`. Picklable: arrays are mapped anew in each process."""

    def __init__(self, options: Options, seed: int):
        self.options = options
        self.seed = seed
        videos, photos = clips.load_prepared(options.root)
        self.videos = _select(videos, options, used=options.photo_fraction < 1)
        self.photos = _select(photos, options, used=options.photo_fraction > 0)

    def map(self, index: int) -> dict[str, np.ndarray]:
        """Returns {"lq": [t, h, w, 3], "gt": [t, scale*h, scale*w, 3]}, float32 in [0, 1]."""
        rng = np.random.default_rng([self.seed, index])
        if rng.random() < self.options.photo_fraction:
            lq, gt = self._degraded(self._photo(rng))
        else:
            frames = self._video_frames(rng)
            h, w = frames.shape[1:3]
            room = min(h, w) >= self._view_size() + 2 * motion.BORDER
            if room and rng.random() < self.options.camera_fraction:
                lq, gt = self._degraded(self._seen_by_camera(frames, rng))
            else:
                lq, gt = self._as_filmed(frames, rng)
        lq, gt = augment((lq, gt), rng, reverse=self.options.reverse_fraction)
        return {"lq": _to_float(lq), "gt": _to_float(gt)}

    def _view_size(self) -> int:
        return self.options.gt_size + 2 * self.options.margin

    def _video_frames(self, rng: np.random.Generator) -> np.ndarray:
        """Draws a clip and num_frames of it, evenly spaced; a mapped view [t, h, w, 3]."""
        clip = _draw(self.videos, rng)
        count = self.options.num_frames
        longest = max(1, min(clip.max_step, (clip.frames - 1) // max(1, count - 1)))
        step = int(rng.integers(1, longest + 1))
        span = (count - 1) * step + 1
        start = int(rng.integers(0, clip.frames - span + 1))
        return mod_crop(clip.array()[start : start + span : step], self.options.scale)

    def _as_filmed(
        self, frames: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crops; the LR crop equals the same crop of the whole frames' LR."""
        size, scale, margin = self.options.gt_size, self.options.scale, self.options.margin
        room = (np.array(frames.shape[1:3]) - size) // scale
        places = [scale * rng.integers(0, room + 1) for _ in range(self.options.tries)]
        y, x = max(
            places, key=lambda p: interest(frames[:, p[0] : p[0] + size, p[1] : p[1] + size])
        )
        top, left = min(margin, y), min(margin, x)
        around = frames[:, y - top : y + size + margin, x - left : x + size + margin]
        return self._degraded(np.ascontiguousarray(around), top=top, left=left)

    def _seen_by_camera(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._layer(frames, self._path(rng), rng)

    def _photo(self, rng: np.random.Generator) -> np.ndarray:
        path = self._path(rng)
        views = self._layer(_draw(self.photos, rng).array(), path, rng)
        if rng.random() < self.options.parallax_fraction:
            nearer = path.faster(rng.uniform(1.3, 2.5))
            above = self._layer(_draw(self.photos, rng).array(), nearer, rng, cutout=True)
            views = motion.overlay(views, above)
        return views

    def _path(self, rng: np.random.Generator) -> motion.Path:
        options = self.options
        speed = options.max_speed * options.scale
        return motion.random_path(
            rng, options.num_frames, max_speed=speed, max_zoom=options.max_zoom
        )

    def _layer(
        self,
        source: np.ndarray,
        path: motion.Path,
        rng: np.random.Generator,
        *,
        cutout: bool = False,
    ) -> np.ndarray:
        """Renders the most interesting of a few places, with room for the margin.

        source: [t, h, w, 3] or [1, h, w, 3]. cutout: adds the opacity of a random shape.
        """
        h, w = source.shape[1:3]
        size = self._view_size()
        matrices = motion.fit(path, size, h, w).matrices(size)
        places = [motion.place(rng, matrices, size, h, w) for _ in range(self.options.tries)]
        matrices = max(places, key=lambda place: interest(_region(source, place, size)))
        if cutout:
            source, matrices = motion.cut_out(rng, source, matrices, size)
        return motion.render(source, matrices, size)

    def _degraded(
        self, around: np.ndarray, *, top: int | None = None, left: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Splits frames with a margin of (top, left) pixels into (lq, gt) crops without."""
        options = self.options
        top = options.margin if top is None else top
        left = options.margin if left is None else left
        small = DEGRADATIONS[options.degradation](around, options.scale)
        size, scale = options.gt_size, options.scale
        y, x, n = top // scale, left // scale, size // scale
        return (
            small[:, y : y + n, x : x + n],
            around[:, top : top + size, left : left + size],
        )


def interest(frames: np.ndarray) -> float:
    """Detail plus motion of a crop [t, h, w, 3], in 8-bit levels; each counts up to a limit.

    The limit keeps noise and text from winning over plain good texture.
    """
    first = frames[0, ::2, ::2, 1].astype(np.int16)
    detail = np.abs(np.diff(first, axis=0)).mean() + np.abs(np.diff(first, axis=1)).mean()
    change = np.abs(frames[-1, ::2, ::2, 1] - first).mean() if len(frames) > 1 else 0.0
    return float(min(detail, 12.0) + min(change, 12.0))


def _region(source: np.ndarray, matrices: np.ndarray, size: int) -> np.ndarray:
    low, high = motion.bounds(matrices, size)
    (x0, y0), (x1, y1) = low.astype(int), high.astype(int) + 1
    return source[:, y0:y1, x0:x1]


def _draw(items: list[Clip], rng: np.random.Generator) -> Clip:
    weights = np.cumsum([clip.weight for clip in items])
    return items[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]


def _to_float(clip: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(clip, dtype=np.float32) / np.float32(255)


def _select(items: list[Clip], options: Options, *, used: bool) -> list[Clip]:
    """Checks every clip against the options; raises UserError that names those that do not fit."""
    if not used:
        return []
    chosen = [clip for clip in items if clip.name not in options.exclude]
    photos = bool(chosen) and chosen[0].array().shape[0] == 1
    smallest = options.gt_size + options.scale - 1
    if photos:
        smallest = options.gt_size + 2 * options.margin + 2 * motion.BORDER
    small = [clip.name for clip in chosen if min(clip.height, clip.width) < smallest]
    if small:
        raise UserError(
            f"{small} in {options.root} are smaller than {smallest} pixels, which gt_size "
            f"{options.gt_size} needs. Lower gt_size or put the names into exclude."
        )
    short = [clip.name for clip in chosen if not photos and clip.frames < options.num_frames]
    if short:
        raise UserError(
            f"{short} in {options.root} have fewer than num_frames = {options.num_frames} frames. "
            "Lower num_frames or put the names into exclude."
        )
    if not chosen:
        raise UserError(
            f"{options.root} has no clips or photos left to draw from; change exclude or "
            f"photo_fraction = {options.photo_fraction}."
        )
    return chosen
