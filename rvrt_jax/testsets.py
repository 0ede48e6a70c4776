"""The test sets of the papers: where they lie, how they are run, and what was published on them.

Nothing here computes; `protocol` does. A clip is a folder of images, `<gt>/<clip>/*.png` below the
data root, and its input the folder of the same name below `lq`; in either, sorted order pairs the
frames. Numbers are RVRT's and others' as the papers and their public code print them.
"""

import dataclasses
from pathlib import Path

from rvrt_jax.data.clips import BUNDLED
from rvrt_jax.errors import UserError

SIGMAS = (10, 20, 30, 40, 50)


@dataclasses.dataclass(frozen=True)
class TestSet:
    """One test set and its published protocol.

    gt, lq: folders of clips below the data root; without `lq` the input is made of the ground
    truth. listing: file that names the clips, instead of all that are there; such clips have seven
    frames, of which the middle one counts. degradation: what made `lq`; "" for real pairs, "noise".
    clips, frames: how many there are, None where nobody says. tile, overlap: in frames and input
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
    clips: int | None = None
    frames: int | None = None
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


_REDS = "REDS (https://seungjunnah.github.io/Datasets/reds.html), train_sharp.zip and " \
    "train_sharp_bicubic.zip: the clips 000, 011, 015 and 020"  # fmt: skip
_PAPER = "the test sets that the RVRT project page offers (https://github.com/JingyunLiang/RVRT)"
_VIMEO = "Vimeo-90K septuplets (http://toflow.csail.mit.edu), vimeo_septuplet.zip"
_SEPTUPLETS = {
    "gt": "Vimeo90K/vimeo_septuplet/sequences",
    "listing": "Vimeo90K/vimeo_septuplet/sep_testlist.txt",
    "fetch": _VIMEO,
    "clips": 7824,
    "luma": True,
}
_TILED = {"tile": (0, 256, 256)}

TEST_SETS = {
    "reds4": TestSet(
        "REDS4", "REDS4/GT", _REDS, "REDS4/sharp_bicubic", degradation="bicubic",
        clips=4, frames=400, tile=(100, 128, 128),
    ),
    "vimeo_bi": TestSet(
        "Vimeo-90K-T BI", lq="Vimeo90K/vimeo_septuplet_matlabLRx4/sequences",
        degradation="bicubic", **_SEPTUPLETS,
    ),
    "vimeo_bd": TestSet(
        "Vimeo-90K-T BD", lq="Vimeo90K/vimeo_septuplet_BDLRx4/sequences",
        degradation="blur_down", **_SEPTUPLETS,
    ),
    "vid4_bi": TestSet(
        "Vid4 BI", "Vid4/GT", _PAPER, "Vid4/BIx4", degradation="bicubic", clips=4, luma=True
    ),
    "vid4_bd": TestSet(
        "Vid4 BD", "Vid4/GT", _PAPER, "Vid4/BDx4", degradation="blur_down", clips=4, luma=True
    ),
    "udm10": TestSet(
        "UDM10 BD", "UDM10/GT", _PAPER, "UDM10/BDx4", degradation="blur_down", clips=10, luma=True
    ),
    "dvd10": TestSet(
        "DVD10", "DVD10/test_GT", "DVD (https://www.cs.ubc.ca/labs/imager/tr/2017/"
        "DeepVideoDeblurring/), the 10 test clips of quantitative_datasets: GT and input",
        "DVD10/test_GT_blurred", clips=10, by_frame=True, **_TILED,
    ),
    "gopro11": TestSet(
        "GoPro11", "GoPro11/test_GT", "GoPro (https://seungjunnah.github.io/Datasets/gopro.html), "
        "GOPRO_Large.zip, the 11 clips of test: sharp and blur (not blur_gamma)",
        "GoPro11/test_GT_blurred", clips=11, frames=1111, by_frame=True, **_TILED,
    ),
    "davis_test": TestSet(
        "DAVIS-test", "DAVIS-test/GT", "DAVIS 2017 test-dev 480p "
        "(https://davischallenge.org/davis2017/code.html): JPEGImages/480p",
        degradation="noise", clips=30, **_TILED,
    ),
    "set8": TestSet("Set8", "Set8/GT", _PAPER, degradation="noise", clips=8, **_TILED),
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
    if test.clips not in (None, len(clips)):
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
