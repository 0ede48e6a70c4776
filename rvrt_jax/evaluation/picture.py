"""A picture of several versions of a frame side by side, with the same detail of each enlarged."""

import os

import cv2
import numpy as np

from rvrt_jax.files import write_bytes

PANEL_WIDTH = (
    320,
    640,
)  # smaller images are enlarged to the first, larger ones reduced to the second
DETAIL = 4  # a side of the frame over the same side of the detail
LABEL_HEIGHT, MARGIN = 28, 6
BACKGROUND, INK, BOX = (24, 24, 24), (235, 235, 235), (255, 220, 0)


def picture(
    panels: list[tuple[str, np.ndarray]], detail: tuple[slice, slice] | None = None
) -> np.ndarray:
    """Draws labelled images in a row, and below each its enlarged detail.

    panels: (label in ASCII, uint8 RGB [h, w, 3]), all of one size. detail: the part to enlarge, two
    slices of rows and columns; the part of the last image with the most detail if None.
    Returns uint8 RGB.
    """
    sizes = {image.shape for _, image in panels}
    if len(sizes) != 1:
        raise ValueError(f"images to compare have sizes {sorted(sizes)}; make them one size.")
    rows, columns = detail or most_detailed(panels[-1][1])
    h, w, _ = sizes.pop()
    width = int(np.clip(w, *PANEL_WIDTH))
    size = (width, max(1, round(h * width / w)))
    zoomed_height = max(1, round((rows.stop - rows.start) * width / (columns.stop - columns.start)))
    strips = []
    for label, image in panels:
        whole = _resize(image, size)
        corners = np.array([[columns.start, rows.start], [columns.stop, rows.stop]]) * width / w
        (left, top), (right, bottom) = corners.round().astype(int)
        cv2.rectangle(whole, (left, top), (right - 1, bottom - 1), BOX, 1)
        zoomed = _resize(image[rows, columns], (width, zoomed_height))
        gap = np.full((MARGIN, width, 3), BACKGROUND, np.uint8)
        strips += [np.concatenate([_label(label, width), whole, gap, zoomed])]
        strips += [np.full((len(strips[-1]), MARGIN, 3), BACKGROUND, np.uint8)]
    return np.concatenate(strips[:-1], axis=1)


def stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """Puts pictures, uint8 RGB, below one another, to the left."""
    width = max(image.shape[1] for image in pictures)
    gap = np.full((2 * MARGIN, width, 3), BACKGROUND, np.uint8)
    rows = []
    for image in pictures:
        rest = np.full((len(image), width - image.shape[1], 3), BACKGROUND, np.uint8)
        rows += [np.concatenate([image, rest], axis=1), gap]
    return np.concatenate(rows[:-1])


def most_detailed(image: np.ndarray) -> tuple[slice, slice]:
    """Returns the part of [h, w, 3], 1 / DETAIL of it each way, whose gradients are largest."""
    h, w, _ = image.shape
    grey = image.astype(np.float32).mean(axis=2)
    vertical, horizontal = (
        np.abs(np.diff(grey, axis=axis, append=grey.take([-1], axis=axis))) for axis in (0, 1)
    )
    height, width = max(1, h // DETAIL), max(1, w // DETAIL)
    sums = np.pad((vertical + horizontal).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    boxes = (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def write(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes uint8 RGB [h, w, 3] as a PNG, under its name only when complete."""
    ok, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not ok:
        raise OSError(f"cannot encode the picture for {path} as a PNG.")
    write_bytes(path, data.tobytes())


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (width, height): averages when it shrinks, shows the pixels when it enlarges."""
    method = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=method)


def _label(text: str, width: int) -> np.ndarray:
    strip = np.full((LABEL_HEIGHT, width, 3), BACKGROUND, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.55
    (length, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1, (width - 2 * MARGIN) / max(1, length))
    return cv2.putText(strip, text, (MARGIN, 19), font, scale, INK, 1, cv2.LINE_AA)
