"""Fetch a file over HTTP, going on where an earlier try broke off."""

import http.client
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

_CHUNK = 1 << 20


def download(url: str, part: Path, *, timeout: float = 30) -> None:
    """Fetches `url` to the file `part`, going on from what an earlier try left there.

    Raises OSError when the server cannot be reached, refuses, or hangs up early.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            resumed = response.status == 206
            span = response.headers.get("Content-Range", "")
            if resumed and not span.startswith(f"bytes {have}-"):
                raise OSError(f"the server sent another range than bytes {have}- of {url}")
            have = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with open(part, "ab" if resumed else "wb") as file:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    _progress(part.stem, have, total)
            _progress(part.stem, have, total, end="\n")
    except urllib.error.HTTPError as error:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code == 416 and total and int(total[1]) == have:
            return  # all of it was here already
        if error.code == 416:
            part.unlink()
            raise OSError(f"{part} did not fit {url} and was removed; try again") from error
        raise
    except http.client.HTTPException as error:
        raise OSError(f"the connection broke after {have} bytes ({error!r})") from error
    if total is not None and have != total:
        raise OSError(
            f"the connection broke after {have} of {total} bytes; a new try goes on there"
        )


def _progress(name: str, have: int, total: int | None, end: str = "") -> None:
    if sys.stderr.isatty():
        of = "" if total is None else f" of {total / 1e6:.1f}"
        print(f"\r{name}: {have / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)
