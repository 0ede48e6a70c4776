"""Still images: reading as RGB, writing as PNG, and finding broken files before work starts.

Images are [h, w, 3] in R, G, B order, uint8 or uint16. OpenCV decodes; `probe` walks through PNG
and JPEG files without decoding, so that a folder of thousands is checked in seconds.
"""

import dataclasses
import logging
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.media import exif

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_ALPHA = (4, 6)  # colour types: grey and RGB with opacity
_JPEG_SIGNATURE = b"\xff\xd8\xff"
# Inside JPEG picture data 0xff is followed by 0 (a stuffed byte) or a restart mark; any other
# byte starts the next segment.
_JPEG_NEXT_SEGMENT = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_JPEG_NOT_A_FRAME = (0xC4, 0xC8, 0xCC)  # table segments in the range of the frame headers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageInfo:
    """What `read` gives of an image."""

    height: int  # pixels, upright
    width: int
    bits: int  # a channel, 8 or 16
    alpha: bool = False  # whether it has opacity beside its colours


def is_image(path: Path) -> bool:
    """Tells whether the name's suffix is one of `IMAGE_SUFFIXES`, whatever its case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_png(data: bytes) -> bool:
    """Tells whether a file's content is a PNG image, by its first bytes."""
    return data.startswith(_PNG_SIGNATURE)


def read(path: Path) -> np.ndarray:
    """Reads an image as RGB, [h, w, 3], uint8 or uint16.

    Grey is repeated over the three channels and palettes are looked up. Photos come upright, as
    their Exif orientation says. Transparency is dropped: colours stay as stored, nothing is blended
    with a background, and a warning is logged if any pixel is not opaque; see `read_with_alpha`. Of
    a file with several pages the first is read.
    Raises UserError for a truncated or damaged file and for pixels that are not 8 or 16 bits.
    """
    return decode(path, _read_bytes(path))


def read_with_alpha(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads what `read` does, and the opacity, [h, w] in the same dtype; None if there is none."""
    return _decode(path, _read_bytes(path))


def probe(path: Path) -> ImageInfo:
    """Returns size and depth; reads the whole file, but decodes only where no short way exists.

    Raises UserError for a truncated PNG or JPEG, and all that `read` raises for other formats.
    """
    return probe_bytes(path, _read_bytes(path))


def probe_bytes(path: Path, data: bytes) -> ImageInfo:
    """Does what `probe` does for a file's content; `path` names it in errors."""
    info = None
    if _animated(data):
        _log.warning("%s is animated: only its first picture is read.", path)
    if data.startswith(_PNG_SIGNATURE):
        info = _probe_png(data)
    elif data.startswith(_JPEG_SIGNATURE):
        info = _probe_jpeg(data)
    else:
        frame, alpha = _decode(path, data)
        height, width, _ = frame.shape
        return ImageInfo(height, width, frame.dtype.itemsize * 8, alpha is not None)
    if info is None:
        raise _broken(path, data)
    if exif.turned(exif.orientation(data)):
        return dataclasses.replace(info, height=info.width, width=info.height)
    return info


def encode_png(frame: np.ndarray, alpha: np.ndarray | None = None) -> bytes:
    """Returns [h, w, 3] RGB, uint8 or uint16, as the content of a PNG file.

    alpha: opacity, [h, w] in the same dtype.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"frame is {frame.dtype} {list(frame.shape)}; a PNG takes uint8 or uint16 [h, w, 3]."
        )
    pixels = frame[..., ::-1] if alpha is None else np.dstack([frame[..., ::-1], alpha])
    ok, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not ok:
        raise OSError(f"the PNG encoder failed on {list(frame.shape)}.")
    return encoded.tobytes()


def _read_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if not data:
        raise UserError(f"{path} is empty (0 bytes). Copy or export it again.")
    return data


def decode(path: Path, data: bytes) -> np.ndarray:
    """Does what `read` does for a file's content; `path` names it in errors."""
    frame, alpha = _decode(path, data)
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        _log.warning("%s is transparent in places: transparency is dropped, colours kept.", path)
    return frame


def _decode(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns colours and opacity, upright."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise _broken(path, data)
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path} holds {image.dtype} pixels; 8 and 16 bit images can be read. "
            "Save it as 16-bit PNG or TIFF."
        )
    way_up = exif.orientation(data)
    if way_up != 1:
        image = exif.upright(image, way_up)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), None
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.ascontiguousarray(image[..., 3])


def _animated(data: bytes) -> bool:
    """Tells whether a PNG or WebP file holds several pictures, by its header."""
    if data.startswith(_PNG_SIGNATURE):
        return b"acTL" in data[: data.find(b"IDAT")]
    extended = data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) > 20
    return extended and data[20] & 2 > 0


def _probe_png(data: bytes) -> ImageInfo | None:
    """Walks the chunks of a PNG; None if it ends before its end chunk, or a checksum is wrong."""
    at, info, colours, view = len(_PNG_SIGNATURE), None, 0, memoryview(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if view[end : end + 4] != zlib.crc32(view[at + 4 : end]).to_bytes(4, "big"):
            return None
        if kind == b"IHDR" and at + 25 <= len(data):
            width, height, depth, colours = struct.unpack_from(">IIBB", data, at + 8)
            info = ImageInfo(height, width, 16 if depth == 16 else 8, colours in _PNG_ALPHA)
        if kind == b"tRNS" and info is not None and colours != 0:  # OpenCV passes over it in grey
            info = dataclasses.replace(info, alpha=True)
        if kind == b"IEND":
            return info
        at += 12 + length
    return None


def _probe_jpeg(data: bytes) -> ImageInfo | None:
    """Walks the segments of a JPEG; None if it ends before its end mark.

    The end mark cannot just be searched for: an embedded preview has one of its own.
    """
    at, info = 2, None
    while True:
        segment = _JPEG_NEXT_SEGMENT.search(data, at)
        if segment is None:
            return None
        mark, at = data[segment.end() - 1], segment.end()
        if mark == 0xD9:
            return info
        if mark == 0x01 or at + 7 > len(data):
            continue
        if 0xC0 <= mark <= 0xCF and mark not in _JPEG_NOT_A_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            info = ImageInfo(height, width, 8)
        at += struct.unpack_from(">H", data, at)[0]


def _broken(path: Path, data: bytes) -> UserError:
    return UserError(
        f"{path} ({len(data)} bytes) cannot be read: it is truncated, damaged or not an image. "
        "Copy or export it again, or take it out of the input."
    )
