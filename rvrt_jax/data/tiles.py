"""Frames in tiles, so that a crop decodes a part of a frame and not all of it.

The form: MAGIC; height, width and the tiles' side as little-endian uint32; where each tile starts
and where the last one ends, uint32 from the first tile on; the tiles, PNG files, row by row. The
tiles of the last column and row are as small as what is left.
"""

import struct

import cv2
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.media import images

MAGIC = b"\x93tiles1\n"
# The tiles that a crop of 272 touches have half as many pixels again as it; of 144x160 they would
# have 2.4 times as many. A file of smaller ones still takes less time, but more of the disk.
SIDE = 64
_HEAD = struct.Struct("<8sIII")


def encode(frame: np.ndarray, side: int = SIDE) -> bytes:
    """Returns [h, w, 3], uint8 or uint16, in tiles of side x side pixels."""
    h, w = frame.shape[:2]
    tiles = [
        images.encode_png(frame[y : y + side, x : x + side])
        for y in range(0, h, side)
        for x in range(0, w, side)
    ]
    ends = np.cumsum([0, *map(len, tiles)]).astype("<u4")
    return b"".join([_HEAD.pack(MAGIC, h, w, side), ends.tobytes(), *tiles])


def is_tiled(content: bytes) -> bool:
    """Tells whether the content of a record is a frame in tiles, and not an image file."""
    return content.startswith(MAGIC)


def size(content: bytes) -> tuple[int, int]:
    """Returns the height and width of a frame in tiles."""
    _, h, w, _ = _HEAD.unpack_from(content)
    return h, w


def crop(content: bytes, top: int, left: int, height: int, width: int, *, where: str) -> np.ndarray:
    """Decodes a part of a frame in tiles, [height, width, 3] RGB, from the tiles that it touches.

    where: names the frame in errors. Raises UserError if a tile is damaged.
    """
    _, h, w, side = _HEAD.unpack_from(content)
    columns = -(-w // side)
    count = columns * -(-h // side)
    starts = np.frombuffer(content, "<u4", count + 1, _HEAD.size)
    base = _HEAD.size + starts.nbytes
    result = None
    for row in range(top // side, (top + height - 1) // side + 1):
        for column in range(left // side, (left + width - 1) // side + 1):
            k = row * columns + column
            start, end = int(starts[k]), int(starts[k + 1])
            data = np.frombuffer(content, np.uint8, end - start, base + start)
            tile = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            if tile is None:
                raise UserError(
                    f"{where}: tile {k} of {count} cannot be decoded. Delete this data set and "
                    "prepare it again."
                )
            if result is None:
                result = np.empty((height, width, 3), tile.dtype)
            rows, to_rows = _overlap(row * side, tile.shape[0], top, height)
            across, to_across = _overlap(column * side, tile.shape[1], left, width)
            result[to_rows, to_across] = tile[rows, across]
    assert result is not None
    return cv2.cvtColor(result, cv2.COLOR_BGR2RGB)


def _overlap(start: int, length: int, first: int, count: int) -> tuple[slice, slice]:
    """Returns where a tile and a crop meet along an axis, in the tile's and the crop's places."""
    low, high = max(start, first), min(start + length, first + count)
    return slice(low - start, high - start), slice(low - first, high - first)
