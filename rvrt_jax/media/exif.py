"""The orientation that a camera notes in a photo, and setting photos upright by it.

JPEG files hold Exif data in an APP1 segment, PNG in an eXIf chunk, WebP in an EXIF chunk; inside
is a small TIFF file (Exif 2.32). TIFF images themselves are set upright by OpenCV.
"""

import struct

import numpy as np

_ORIENTATION, _SHORT = 0x0112, 3  # tag and type of the entry
_TURNED, _MIRRORED, _FLIPPED = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


def orientation(data: bytes) -> int:
    """Returns how an image file is to be shown, 1 to 8; 1, as stored, if it does not say."""
    if data.startswith(b"\xff\xd8"):
        tiff = _in_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        tiff = _in_chunks(data, at=8, name_at=4, form=">I", name=b"eXIf", extra=12)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        tiff = _in_chunks(data, at=12, name_at=0, form="<I", name=b"EXIF", extra=8)
    else:
        return 1
    value = _from_tiff(tiff.removeprefix(b"Exif\0\0"))
    return value if 1 <= value <= 8 else 1


def turned(orientation: int) -> bool:
    """Tells whether height and width change places."""
    return orientation in _TURNED


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image, [h, w] or [h, w, c], as it is to be shown."""
    if orientation in _TURNED:
        image = image.swapaxes(0, 1)
    if orientation in _MIRRORED:
        image = image[:, ::-1]
    if orientation in _FLIPPED:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _in_jpeg(data: bytes) -> bytes:
    """Returns the Exif data of a JPEG file; empty if it has none before the picture."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        mark, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        if mark == 0xFF:  # a stuffed byte
            at += 1
            continue
        if mark == 0xDA:  # the picture begins
            break
        if mark == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            return data[at + 4 : at + 2 + length]
        at += 2 + length
    return b""


def _in_chunks(data: bytes, *, at: int, name_at: int, form: str, name: bytes, extra: int) -> bytes:
    """Returns a chunk's content; extra: bytes that each takes beside it. Empty if there is none."""
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(form, data, at + 4 - name_at)
        if data[at + name_at : at + name_at + 4] == name:
            return data[at + 8 : at + 8 + length]
        at += extra + length + (length % 2 if form == "<I" else 0)
    return b""


def _from_tiff(tiff: bytes) -> int:
    """Returns the orientation in Exif data; 0 if there is none, or nothing that can be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 0
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return 0
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
        if (tag, kind) == (_ORIENTATION, _SHORT):
            return value
    return 0
