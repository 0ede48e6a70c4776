"""The test sets of the papers: where they lie, how they are run, and what was published on them.

Nothing here computes; `protocol` does. A clip is a folder of images, `<gt>/<clip>/*.png` below the
data root, and its input the folder of the same name below `lq`; in either, sorted order pairs the
frames. Numbers are RVRT's and others' as the papers and their public code print them.
"""

import dataclasses
from pathlib import Path
from typing import Any

from rvrt_jax.data.clips import BUNDLED
from rvrt_jax.data.published import DATASETS
from rvrt_jax.errors import UserError

SIGMAS = (10, 20, 30, 40, 50)


@dataclasses.dataclass(frozen=True)
class TestSet:
    """One test set and its published protocol.

    gt, lq: folders of clips below the data root; without `lq` the input is made of the ground
    truth. listing: file that names the clips, instead of all that are there; such clips have seven
    frames, of which the middle one counts. degradation: what made `lq`; "" for real pairs, "noise".
    clips, frames: how many there are, 0 where nobody says. tile, overlap: in frames and input
    pixels, None for the whole clip. luma: the published numbers are of Y, else of RGB. by_frame:
    they are means over all frames, else over clips. fetch: where it comes from.
    """

    __test__ = False  # not a test, though its name begins like one

    title: str
    gt: str
    fetch: str
    lq: str | None = None
    listing: str | None = None
    degradation: str = ""
    clips: int = 0
    frames: int = 0
    tile: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (2, 20, 20)
    luma: bool = False
    by_frame: bool = False

    @property
    def levels(self) -> tuple[int | None, ...]:
        """The noise levels it is run at; one None without noise."""
        return SIGMAS if self.degradation == "noise" else (None,)

    @property
    def metrics(self) -> tuple[str, str]:
        """The names of its published PSNR and SSIM."""
        return ("psnr_y", "ssim_y") if self.luma else ("psnr_rgb", "ssim_rgb")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip: `lq` is None where the input is made of the ground truth."""

    name: str
    gt: Path
    lq: Path | None


def _known(title: str, dataset: str, **fields: Any) -> TestSet:
    """Returns a set with the counts and the source that `published` has of `dataset`."""
    data = DATASETS[dataset]
    split = data.splits["test"]
    fetch = f"{data.files} from {data.source}"
    return TestSet(title, fetch=fetch, clips=split.clips, frames=split.frames, **fields)


_VIMEO = "Vimeo90K/vimeo_septuplet"
_VIMEO_TEST = f"{_VIMEO}/sep_testlist.txt"
_TILE = (0, 256, 256)

TEST_SETS = {
    "reds4": _known(
        "REDS4", "reds4", gt="REDS4/GT", lq="REDS4/sharp_bicubic",
        degradation="bicubic", tile=(100, 128, 128),
    ),
    "vimeo_bi": _known(
        "Vimeo-90K-T BI", "vimeo", gt=f"{_VIMEO}/sequences", lq=f"{_VIMEO}_matlabLRx4/sequences",
        listing=_VIMEO_TEST, degradation="bicubic", luma=True,
    ),
    "vimeo_bd": _known(
        "Vimeo-90K-T BD", "vimeo", gt=f"{_VIMEO}/sequences", lq=f"{_VIMEO}_BDLRx4/sequences",
        listing=_VIMEO_TEST, degradation="blur_down", luma=True,
    ),
    "vid4_bi": _known(
        "Vid4 BI", "vid4", gt="Vid4/GT", lq="Vid4/BIx4", degradation="bicubic", luma=True
    ),
    "vid4_bd": _known(
        "Vid4 BD", "vid4", gt="Vid4/GT", lq="Vid4/BDx4", degradation="blur_down", luma=True
    ),
    "udm10": _known(
        "UDM10 BD", "udm10", gt="UDM10/GT", lq="UDM10/BDx4", degradation="blur_down", luma=True
    ),
    "dvd10": _known(
        "DVD10", "dvd10", gt="DVD10/test_GT", lq="DVD10/test_GT_blurred",
        tile=_TILE, by_frame=True,
    ),
    "gopro11": _known(
        "GoPro11", "gopro11", gt="GoPro11/test_GT", lq="GoPro11/test_GT_blurred",
        tile=_TILE, by_frame=True,
    ),
    "davis_test": _known(
        "DAVIS-test", "davis_test", gt="DAVIS-test/GT", degradation="noise", tile=_TILE
    ),
    "set8": _known("Set8", "set8", gt="Set8/GT", degradation="noise", tile=_TILE),
    "bundled": TestSet(
        "bundled clips", str(BUNDLED), "the package itself", degradation="bicubic", clips=3
    ),
}  # fmt: skip

# Of each model by set, and for noise (set, sigma): PSNR and SSIM (None: not given).
PUBLISHED: dict[str, dict[str | tuple[str, int], tuple[float, float | None]]] = {
    "RVRT": {
        "reds4": (32.75, 0.9113),
        "vimeo_bi": (38.15, 0.9527),
        "vid4_bi": (27.99, 0.8462),
        "udm10": (40.90, 0.9729),
        "vimeo_bd": (38.59, 0.9576),
        "vid4_bd": (29.54, 0.8810),
        "dvd10": (34.30, 0.9655),
        "gopro11": (34.92, 0.9738),
        **{
            ("davis_test", sigma): (psnr, None)
            for sigma, psnr in zip(SIGMAS, (40.57, 38.05, 36.57, 35.47, 34.57), strict=True)
        },
        **{
            ("set8", sigma): (psnr, None)
            for sigma, psnr in zip(SIGMAS, (37.53, 34.83, 33.30, 32.21, 31.33), strict=True)
        },
    },
    "EDVR-M": {"reds4": (30.53, 0.8699)},
    "EDVR-L": {"reds4": (31.09, 0.8800), "vid4_bi": (27.35, 0.8264)},
    "BasicVSR": {"reds4": (31.42, 0.8909)},
}


def find(name: str, root: Path, *, degrade: bool = False) -> list[Clip]:
    """Returns the clips of a test set below `root`, all of whose folders are there.

    degrade: makes the input of the ground truth where its folder is missing.
    Raises UserError for a folder or clips that are missing: what to fetch, and where it belongs.
    """
    test = TEST_SETS[name]
    gt = root / test.gt  # an absolute one stays as it is
    lq = None if test.lq is None else root / test.lq
    if lq is not None and not lq.is_dir() and degrade and test.degradation:
        lq = None
    wanted = [path for path in (gt, lq) if path is not None]
    missing = [path for path in wanted if not path.is_dir()]
    if test.listing is not None and not (root / test.listing).is_file():
        missing.append(root / test.listing)
    if missing:
        raise UserError(_instructions(test, missing, offer_degrade=missing == [lq]))
    if test.listing is not None:
        names = (root / test.listing).read_text().split()
    else:
        names = sorted(path.name for path in gt.iterdir() if path.is_dir())
    clips = [Clip(clip, gt / clip, lq / clip if lq is not None else None) for clip in names]
    absent = [str(p) for c in clips for p in (c.gt, c.lq) if p is not None and not p.is_dir()]
    if absent:
        raise UserError(
            f"{test.title}: {len(absent)} folders of clips are missing, such as {absent[0]}. "
            f"Input and ground truth need the same clips; fetch {test.fetch}."
        )
    if test.clips not in (0, len(clips)):
        raise UserError(
            f"{test.title} has {test.clips} clips, but {len(clips)} are in {gt}: "
            f"{', '.join(names[:12])}. Complete it, or look for a folder level too many."
        )
    return clips


def _instructions(test: TestSet, missing: list[Path], *, offer_degrade: bool) -> str:
    layout = "/im1.png to im7.png" if test.listing else "/*.png (or .jpg)"
    lines = [
        f"{test.title} is not there: {', '.join(map(str, missing))} missing.",
        f"  fetch {test.fetch}",
        *(f"  put the clips into {path}/<clip>{layout}" for path in missing if not path.suffix),
    ]
    if offer_degrade and test.degradation:
        lines.append(f"  or pass --degrade: the input is then made of the ground truth "
                     f"({test.degradation}, x4)")  # fmt: skip
    return "\n".join(lines)
