"""Training samples, each made from (seed, index) alone.

A sample is a crop of a clip, as filmed or seen by a virtual camera, or a photo under a virtual
camera with, sometimes, a second layer before it. LR frames that are made on the fly are rounded to
8 bit, as LR files on disk would be; noise is neither clipped nor rounded, and comes last.
"""

import grain
import numpy as np

from rvrt_jax import files
from rvrt_jax.data import blur, camera, corpus, degrade
from rvrt_jax.data.augment import augment
from rvrt_jax.data.clips import Frames, SourceClip, WholeFrames
from rvrt_jax.data.options import MOTION_BLUR, NOISE, DataOptions

BLURRING_SHAKE = 5.0  # pixels, mean amplitude of a camera's shake that blurs


class Sampler(grain.transforms.Map):
    """Makes sample number `index`. Picklable: each process opens the files for itself."""

    def __init__(self, options: DataOptions, seed: int, targets: slice = slice(None)):
        """targets: which frames of a sample's GT are wanted.

        Raises UserError if the data is missing or does not fit the options.
        """
        self.options = options
        self.seed = seed
        self.targets = targets
        self.videos, self.photos = corpus.load(options)
        self._video_weights = np.cumsum([pair.gt.weight for pair in self.videos])
        self._photo_weights = np.cumsum([photo.weight for photo in self.photos])

    def map(self, index: int) -> dict[str, np.ndarray]:
        """Returns {"lq": [t, h, w, 3], "gt": [t, scale*h, scale*w, 3]}, uint8.

        With noise lq is float32 [t, h, w, 4], 1 for 255, with its level / 255 as the last channel.
        A read that fails is tried again (`files.patiently`).
        """
        return files.patiently(lambda: self._sample(index))

    def _sample(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        if rng.random() < self.options.photo_fraction:
            lq, gt = self._degraded(self._photo(rng))
        else:
            lq, gt = self._video(rng)
        lq, gt = augment((lq, gt), rng, reverse=self.options.reverse_fraction)
        if self.options.mirror:
            lq, gt = mirrored(lq), mirrored(gt)
        if len(gt) == len(lq):
            gt = gt[self.targets]
        if self.options.degradation == NOISE:
            lq = noisy(to_float(lq), rng.uniform(*self.options.sigma), rng)
        return {"lq": np.ascontiguousarray(lq), "gt": np.ascontiguousarray(gt)}

    def _video(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws a clip and num_frames of it, evenly spaced; returns crops of them."""
        pair = self.videos[_draw(self._video_weights, rng)]
        if self.options.degradation == MOTION_BLUR:
            return self._filmed_blurred(pair.gt, rng)
        start, stop, step = self._times(pair.gt, rng)
        frames = pair.gt.select(start, stop, step)
        if pair.lq is not None:
            return self._cropped(pair.lq.select(start, stop, step, beside=frames), frames, rng)
        h, w = self._usable(frames)
        room = min(h, w) >= self._view_size() + 2 * camera.BORDER
        if room and rng.random() < self.options.camera_fraction:
            return self._degraded(self._layer(frames.crop(0, 0, h, w), self._path(rng), rng))
        return self._as_filmed(frames, rng)

    def _usable(self, frames: Frames) -> tuple[int, int]:
        """Returns height and width, cut to multiples of the scale."""
        _, h, w = frames.shape
        return h - h % self.options.scale, w - w % self.options.scale

    def _filmed_blurred(
        self, clip: SourceClip, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws exposures of neighbouring frames, or those of a virtual camera that looks at them.

        The camera gives every blur, without steps, but none to what moves by itself before it.
        """
        options, moments = self.options, 1
        seen = options.blur_frames == 1 or rng.random() < options.camera_fraction
        if not seen:
            moments = 2 * int(rng.integers(1, options.blur_frames // 2 + 1)) + 1
        start, stop, step = self._times(clip, rng, moments=moments)
        room = min(clip.height, clip.width) >= self._view_size() + 2 * camera.BORDER
        if seen and room:
            frames = clip.select(start, stop, step).crop(0, 0, clip.height, clip.width)
            return self._degraded(self._layer(frames, self._path(rng), rng))
        frames = clip.read(start, stop)
        exposed = frames[blur.exposures(options.num_frames, step, moments)]
        return self._as_filmed(WholeFrames(exposed), rng)

    def _times(
        self, clip: SourceClip, rng: np.random.Generator, *, moments: int = 1
    ) -> tuple[int, int, int]:
        """Draws (start, stop, step) of num_frames exposures of `moments` frames."""
        count, rest = self.options.num_frames, clip.frames - moments
        longest = max(1, min(clip.max_step, rest // max(1, count - 1)))
        step = int(rng.integers(1, longest + 1))
        span = (count - 1) * step + moments
        start = int(rng.integers(0, clip.frames - span + 1))
        return start, start + span, step

    def _view_size(self) -> int:
        return self.options.gt_size + 2 * self.options.margin

    def _place(self, frames: Frames, rng: np.random.Generator) -> tuple[int, int]:
        """Returns the top left corner of the most interesting of a few crops of `frames`."""
        size, scale = self.options.gt_size, self.options.scale
        room = (np.array(self._usable(frames)) - size) // scale
        places = [scale * rng.integers(0, room + 1) for _ in range(self.options.tries)]
        if len(places) > 1:
            ends = sorted({0, frames.shape[0] - 1})
            places.sort(
                key=lambda p: -interest(frames.crop(int(p[0]), int(p[1]), size, size, only=ends))
            )
        return int(places[0][0]), int(places[0][1])

    def _cropped(
        self, lq: Frames, gt: Frames, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Crops both at the same place; of GT no other frame than a middle one that is wanted."""
        (y, x), size, scale = self._place(gt, rng), self.options.gt_size, self.options.scale
        n, middle = size // scale, self.options.num_frames // 2
        # Played backwards, too, it is the middle one.
        alone = self.targets == slice(middle, middle + 1) and self.options.sample_frames % 2 == 1
        return (
            lq.crop(y // scale, x // scale, n, n),
            gt.crop(y, x, size, size, only=[middle] if alone else None),
        )

    def _as_filmed(self, frames: Frames, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Crops; the LR crop equals the same crop of the whole frames' LR."""
        size, margin = self.options.gt_size, self.options.margin
        y, x = self._place(frames, rng)
        h, w = self._usable(frames)
        top, left = min(margin, y), min(margin, x)
        bottom, right = min(y + size + margin, h), min(x + size + margin, w)
        around = frames.crop(y - top, x - left, bottom - y + top, right - x + left)
        return self._degraded(np.ascontiguousarray(around), top=top, left=left)

    def _photo(self, rng: np.random.Generator) -> np.ndarray:
        path = self._path(rng)
        views = self._layer(self._draw_photo(rng), path, rng)
        if rng.random() < self.options.parallax_fraction:
            nearer = path.faster(rng.uniform(1.3, 2.5))
            above = self._layer(self._draw_photo(rng), nearer, rng, cutout=True)
            views = camera.overlay(views, above)
        return views

    def _draw_photo(self, rng: np.random.Generator) -> np.ndarray:
        return self.photos[_draw(self._photo_weights, rng)].read(0, 1)

    def _path(self, rng: np.random.Generator) -> camera.CameraPath:
        options = self.options
        speed = options.max_speed * options.scale
        if options.degradation != MOTION_BLUR:
            return camera.random_path(
                rng, options.num_frames, max_speed=speed, max_zoom=options.max_zoom
            )
        steps = options.blur_steps
        path = camera.random_path(
            rng,
            options.num_frames,
            max_speed=speed,
            max_zoom=options.max_zoom,
            substeps=steps,
            slowest=0.1,
            # Hands shake: frames of one clip are blurred in other ways, and some are sharp.
            shake=BLURRING_SHAKE,
        )
        moments = blur.shutter(rng, steps)
        closed = (steps - moments) // 2
        return path.at(closed + blur.exposures(options.num_frames, steps, moments))

    def _layer(
        self,
        source: np.ndarray,
        path: camera.CameraPath,
        rng: np.random.Generator,
        *,
        cutout: bool = False,
    ) -> np.ndarray:
        """Renders the most interesting of a few places, with room for the margin.

        source: [t, h, w, 3] or [1, h, w, 3], for a path of n t moments. cutout: adds the opacity
        of a random shape.
        """
        h, w = source.shape[1:3]
        size = self._view_size()
        matrices = camera.fit(path, size, h, w).matrices(size)
        places = [camera.place(rng, matrices, size, h, w) for _ in range(self.options.tries)]
        matrices = max(places, key=lambda place: interest(_region(source, place, size)))
        if cutout:
            source, matrices = camera.cut_out(rng, source, matrices, size)
        return camera.render(source, matrices, size)

    def _degraded(
        self, around: np.ndarray, *, top: int | None = None, left: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Splits frames with a margin of (top, left) pixels into (lq, gt) crops without."""
        options = self.options
        top = options.margin if top is None else top
        left = options.margin if left is None else left
        size, scale = options.gt_size, options.scale
        gt = around[:, top : top + size, left : left + size]
        if options.degradation == NOISE:
            return gt, gt
        if options.degradation == MOTION_BLUR:
            moments = len(gt) // options.num_frames
            return blur.expose(gt, moments), gt[moments // 2 :: moments]
        small = degrade.DEGRADATIONS[options.degradation](around, scale)
        y, x, n = top // scale, left // scale, size // scale
        return small[:, y : y + n, x : x + n], gt


def mirrored(clip: np.ndarray) -> np.ndarray:
    """Appends [t, ...] in reverse order: 2 t frames."""
    return np.concatenate([clip, clip[::-1]])


def noisy(clip: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Returns float32 [t, h, w, 4]: the clip with noise of `sigma` 8-bit levels, and sigma / 255.

    clip: float32 [t, h, w, 3] in [0, 1].
    """
    level = np.full((*clip.shape[:3], 1), sigma / 255, np.float32)
    return np.concatenate([degrade.add_noise(clip, sigma, rng), level], axis=-1)


def to_float(clip: np.ndarray) -> np.ndarray:
    """Returns uint8 pixels as contiguous float32 in [0, 1]."""
    return np.ascontiguousarray(clip, dtype=np.float32) / np.float32(255)


def interest(frames: np.ndarray) -> float:
    """Detail plus motion of a crop [t, h, w, 3], in 8-bit levels; each counts up to a limit.

    The limit keeps noise and text from winning over plain good texture.
    """
    first = frames[0, ::2, ::2, 1].astype(np.int16)
    detail = np.abs(np.diff(first, axis=0)).mean() + np.abs(np.diff(first, axis=1)).mean()
    change = np.abs(frames[-1, ::2, ::2, 1] - first).mean() if len(frames) > 1 else 0.0
    return float(min(detail, 12.0) + min(change, 12.0))


def _region(source: np.ndarray, matrices: np.ndarray, size: int) -> np.ndarray:
    low, high = camera.bounds(matrices, size)
    (x0, y0), (x1, y1) = low.astype(int), high.astype(int) + 1
    return source[:, y0:y1, x0:x1]


def _draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    """Draws an index; weights are summed up to each."""
    return int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
