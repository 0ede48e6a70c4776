"""A virtual camera: moving views of a photo or a video, and a second layer before them.

A camera is one affine map a frame, from pixels of the view to pixels of the source. Coordinates
are (x, y), pixel centres at integers.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

# Views are rendered at twice their size with cubic interpolation and averaged 2x2: together with
# the box filter for zoom >= 2 this keeps them sharp without aliasing.
SUPERSAMPLE = 2
BORDER = 2  # pixels that cubic interpolation may read beyond the view


@dataclass(frozen=True)
class CameraPath:
    """Where a camera looks, frame by frame, before it is placed on a source.

    shift: [t, 2] in view pixels. angle: [t] radians. zoom: [t], source pixels per view pixel.
    """

    shift: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray

    def calmer(self) -> "CameraPath":
        """The same path with less motion, less tilt and a closer zoom (never magnifying)."""
        zoom = 1 + 0.7 * (self.zoom - 1)
        return CameraPath(0.7 * self.shift, 0.7 * self.angle, np.maximum(zoom, 1))

    def faster(self, factor: float) -> "CameraPath":
        """The same path, as seen on a layer that is nearer by `factor`."""
        return replace(self, shift=factor * self.shift)

    def at(self, moments: np.ndarray) -> "CameraPath":
        """The path at some of its moments."""
        return CameraPath(self.shift[moments], self.angle[moments], self.zoom[moments])

    def matrices(self, size: int) -> np.ndarray:
        """View-to-source maps [t, 2, 3] of a size x size view, its centre path round the origin."""
        cos, sin = self.zoom * np.cos(self.angle), self.zoom * np.sin(self.angle)
        linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
        centre = np.full(2, (size - 1) / 2)
        offset = self.zoom[:, None] * self.shift - linear @ centre
        return np.concatenate([linear, offset[..., None]], axis=-1)


def random_path(
    rng: np.random.Generator,
    num_frames: int,
    *,
    max_speed: float,
    max_zoom: float,
    substeps: int = 1,
    slowest: float = 0.01,
    shake: float = 0.7,
) -> CameraPath:
    """Draws a smooth path: a pan with some acceleration, a slow shake, a turn and a zoom.

    max_speed: of the pan, in view pixels a frame; speeds are log-uniform, `slowest` of it at
    least. max_zoom: the zoom is log-uniform between 1 and this. shake: its mean amplitude in view
    pixels. substeps: moments of each frame,
    num_frames * substeps in all, the frame itself in their middle.
    """
    moments = num_frames * substeps
    time = (np.arange(moments) - (moments - 1) / 2) / substeps
    speed = max_speed * 10 ** rng.uniform(np.log10(slowest), 0)
    heading = rng.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(heading), np.sin(heading)])
    acceleration = speed * rng.normal(0, 0.05, 2)
    amplitude, phase = rng.exponential(shake, 2), rng.uniform(0, 2 * np.pi, 2)
    frequency = 2 * np.pi * rng.uniform(0.03, 0.2, 2)
    shift = np.outer(time, velocity) + np.outer(time**2, acceleration)
    shift += amplitude * np.sin(np.outer(time, frequency) + phase)
    # Most takes are level and turn little; heavy tails give the others.
    angle = rng.laplace(0, np.radians(3)) + time * rng.laplace(0, np.radians(0.25))
    zoom = max_zoom ** rng.uniform(0, 1) * np.exp(time * rng.laplace(0, 0.004))
    return CameraPath(shift, angle.clip(-np.pi / 4, np.pi / 4), np.maximum(zoom, 1))


def fit(path: CameraPath, size: int, height: int, width: int) -> CameraPath:
    """Calms the path until its views fit into a height x width source.

    Raises ValueError if the source is smaller than the view.
    """
    if min(height, width) < size + 2 * BORDER:
        raise ValueError(f"a view of {size} pixels does not fit into {height}x{width}.")
    for _ in range(20):
        low, high = bounds(path.matrices(size), size)
        if np.all(high - low <= np.array([width, height]) - 1 - 2 * BORDER):
            return path
        path = path.calmer()
    still = np.zeros(len(path.angle))
    return CameraPath(np.zeros_like(path.shift), still, still + 1)


def bounds(matrices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (x, y) of the source that the views touch."""
    last = size - 1
    corners = np.array([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]]).T
    points = matrices @ corners
    return points.min(axis=(0, 2)), points.max(axis=(0, 2))


def place(
    rng: np.random.Generator, matrices: np.ndarray, size: int, height: int, width: int
) -> np.ndarray:
    """Moves the views [t, 2, 3] to a random place of the source where all of them lie inside."""
    low, high = bounds(matrices, size)
    room = np.array([width, height]) - 1 - 2 * BORDER - (high - low)
    offset = BORDER - low + rng.uniform(0, 1, 2) * np.maximum(room, 0)
    return np.concatenate([matrices[..., :2], matrices[..., 2:] + offset[:, None]], axis=-1)


def render(source: np.ndarray, matrices: np.ndarray, size: int) -> np.ndarray:
    """Renders the views.

    source: uint8 [t, h, w, c], or [1, h, w, c] for a still one. matrices: [n t, 2, 3]; n views are
    of one frame. Returns uint8 [n t, size, size, c].
    """
    low, high = bounds(matrices, size)
    # The integer part of the zoom is a box filter; the rest is left to the supersampling.
    zoom = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])).mean())
    factor = max(1, int(zoom))
    x0, y0 = np.maximum(np.floor(low).astype(int) - BORDER * factor, 0)
    x1, y1 = np.ceil(high).astype(int) + 1 + BORDER * factor
    regions = [_shrink(frame[y0:y1, x0:x1], factor) for frame in source]
    matrices = matrices - np.array([[0, 0, x0], [0, 0, y0]])
    return np.stack(
        [
            _view(regions[i * len(regions) // len(matrices)], _rescale(matrix, factor), size)
            for i, matrix in enumerate(matrices)
        ]
    )


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    h, w = image.shape[0] // factor, image.shape[1] // factor
    image = np.ascontiguousarray(image[: h * factor, : w * factor])
    if factor == 1:
        return image
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)


def _rescale(matrix: np.ndarray, factor: int) -> np.ndarray:
    """From [2, 3] view-to-source to supersampled-view-to-shrunk-source."""
    linear, offset = matrix[:, :2] / (factor * SUPERSAMPLE), matrix[:, 2]
    # Pixel i of a grid that is n times coarser has its centre at n * i + (n - 1) / 2.
    offset = (offset - (factor - 1) / 2) / factor - linear.sum(axis=1) * (SUPERSAMPLE - 1) / 2
    return np.concatenate([linear, offset[:, None]], axis=1)


def _view(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    large = cv2.warpAffine(
        image,
        matrix,
        (size * SUPERSAMPLE, size * SUPERSAMPLE),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def random_shape(rng: np.random.Generator, height: int, width: int, *, cell: float) -> np.ndarray:
    """Draws a mask uint8 [height, width]: smooth blobs about `cell` pixels wide, soft edges."""
    grid = (max(4, round(height / cell) + 3), max(4, round(width / cell) + 3))
    noise = rng.standard_normal(grid).astype(np.float32)
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    threshold = np.quantile(noise[::4, ::4], rng.uniform(0.5, 0.8))
    # The noise climbs by about 1 over a cell, so that this makes edges of a pixel or two.
    return np.clip((noise - threshold) * (cell * 127) + 127, 0, 255).astype(np.uint8)


def cut_out(
    rng: np.random.Generator, source: np.ndarray, matrices: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the part of a still source that the views see, with a random opacity, and its maps.

    source: uint8 [1, h, w, 3]. The part is uint8 [1, h', w', 4].
    """
    low, high = bounds(matrices, size)
    x0, y0 = np.maximum(np.floor(low).astype(int) - BORDER, 0)
    x1, y1 = np.ceil(high).astype(int) + 1 + BORDER
    part = source[0, y0:y1, x0:x1]
    zoom = np.sqrt(np.abs(np.linalg.det(matrices[0, :, :2])))
    cell = zoom * size * rng.uniform(0.15, 0.5)
    opacity = random_shape(rng, *part.shape[:2], cell=cell)
    layer = np.concatenate([part, opacity[..., None]], axis=-1)
    return layer[None], matrices - np.array([[0, 0, x0], [0, 0, y0]])


def overlay(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Lays the views `above`, [t, h, w, 4] with opacity as the last channel, on `below`."""
    opacity = above[..., 3:].astype(np.float32) / 255
    mixed = below + opacity * (above[..., :3].astype(np.float32) - below)
    return (mixed + 0.5).astype(np.uint8)
