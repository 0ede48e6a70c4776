"""The test sets of the papers: where they lie, how they are run, and what was published on them.

Nothing here computes; `protocol` does. A set is taken as rvrt_jax.data.prepare leaves it below the
data root, or else as folders of images: `<gt>/<clip>/*.png`, its input in the folder of the same
name below `lq`; in either, sorted order pairs the frames. Numbers are RVRT's and others' as the
papers and their public code print them. The table is assets/test_sets.json.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rvrt_jax.data import published, records
from rvrt_jax.data.clips import ASSETS, BUNDLED
from rvrt_jax.data.published import DATASETS
from rvrt_jax.data.records import RecordClip, RecordFrames
from rvrt_jax.errors import UserError
from rvrt_jax.media.frame_source import FrameSource
from rvrt_jax.media.frames import open_frames

SIGMAS = (10, 20, 30, 40, 50)
MIDDLE = 3  # of a septuplet, counted from 0


@dataclasses.dataclass(frozen=True)
class TestSet:
    """One test set and its published protocol.

    gt, lq: folders of clips below the data root; without `lq` the input is made of the ground
    truth. listing: file that names the clips, instead of all that are there; such clips have seven
    frames, of which the middle one counts. degradation: what made `lq`; "" for real pairs, "noise".
    clips, frames: how many there are, 0 where nobody says. tile, overlap: in frames and input
    pixels, None for the whole clip. luma: the published numbers are of Y, else of RGB. by_frame:
    they are means over all frames, else over clips. fetch: where it comes from. dataset: its name
    in `published`.
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
    dataset: str = ""

    @property
    def kind(self) -> str:
        """What its degraded frames are called where it is prepared, "" without any."""
        return (self.degradation or "blurred") if self.lq is not None else ""

    @property
    def levels(self) -> tuple[int | None, ...]:
        """The noise levels it is run at; one None without noise."""
        return SIGMAS if self.degradation == "noise" else (None,)

    @property
    def metrics(self) -> tuple[str, str]:
        """The names of its published PSNR and SSIM."""
        return ("psnr_y", "ssim_y") if self.luma else ("psnr_rgb", "ssim_rgb")


@dataclasses.dataclass(frozen=True)
class TestClip:
    """One clip: `lq` is None where the input is made of the ground truth.

    Each is a folder of images or a prepared clip, which `opened` reads. listed: a septuplet.
    """

    __test__ = False

    name: str
    gt: Path | RecordClip
    lq: Path | RecordClip | None
    listed: bool = False

    @property
    def truth(self) -> Path | RecordClip:
        """The ground truth that counts: all of it, or the middle frame of a septuplet."""
        if not self.listed:
            return self.gt
        if isinstance(self.gt, Path):
            return self.gt / f"im{MIDDLE + 1}.png"
        return dataclasses.replace(self.gt, first=self.gt.first + MIDDLE, frames=1)


@dataclasses.dataclass(frozen=True)
class Job:
    """One clip of one set at one noise level."""

    key: str
    test: TestSet
    sigma: int | None
    clip: TestClip


def opened(place: Path | RecordClip) -> FrameSource:
    """Opens the frames of a clip."""
    return open_frames(place) if isinstance(place, Path) else RecordFrames(place)


def _test_set(fields: dict[str, Any]) -> TestSet:
    """Returns a set as the table has it, with counts and source of its entry in `published`."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    if fields["gt"] is None:
        fields["gt"] = str(BUNDLED)
    if "dataset" in fields:
        data = DATASETS[fields["dataset"]]
        split = data.splits["test"]
        fields |= {"clips": split.clips, "frames": split.frames}
        fields["fetch"] = f"{data.files} from {data.source}"
    return TestSet(**fields)


_TABLE = json.loads((ASSETS / "test_sets.json").read_text())
TEST_SETS = {name: _test_set(fields) for name, fields in _TABLE["sets"].items()}
# Of each model by set, and for noise by (set, sigma): PSNR and SSIM (None: not given).
PUBLISHED: dict[str, dict[str | tuple[str, int], tuple[float, float | None]]] = {
    model: {
        (row["set"], row["sigma"]) if "sigma" in row else row["set"]: (row["psnr"], row["ssim"])
        for row in rows
    }
    for model, rows in _TABLE["published"].items()
}
# LPIPS of each model by set, as it was handed to this project; its source was not found.
PUBLISHED_LPIPS: dict[str, dict[str, float]] = {
    model: {row["set"]: row["lpips"] for row in rows if "lpips" in row}
    for model, rows in _TABLE["published"].items()
}


def find(name: str, root: Path, *, degrade: bool = False) -> list[TestClip]:
    """Returns the clips of a test set below `root`, all of which are there.

    degrade: makes the input of the ground truth where it is missing.
    Raises UserError for a set or clips that are missing: what to fetch, and where it belongs.
    """
    test = TEST_SETS[name]
    if test.dataset and records.kinds(root, test.dataset):
        clips, place = _prepared(test, root, degrade=degrade), root / test.dataset
    else:
        clips, place = _in_folders(test, root, degrade=degrade), root / test.gt
    if test.clips not in (0, len(clips)):
        raise UserError(
            f"{test.title} has {test.clips} clips, but {len(clips)} are in {place}: "
            f"{', '.join(clip.name for clip in clips[:12])}. Complete it, or look for a folder "
            "level too many."
        )
    return clips


def _prepared(test: TestSet, root: Path, *, degrade: bool) -> list[TestClip]:
    """Returns the clips of a set that rvrt_jax.data.prepare has left below `root`."""
    made = degrade and test.degradation and test.kind not in records.kinds(root, test.dataset)
    pairs = records.load(root, test.dataset, "test", lq="" if made else test.kind)
    listed = test.listing is not None
    return [TestClip(gt.name, gt, lq, listed) for gt, lq in pairs]


def _in_folders(test: TestSet, root: Path, *, degrade: bool) -> list[TestClip]:
    """Returns the clips of a set that lies below `root` as folders of images."""
    gt = root / test.gt  # an absolute one stays as it is
    lq = None if test.lq is None else root / test.lq
    if lq is not None and not lq.is_dir() and degrade and test.degradation:
        lq = None
    wanted = [path for path in (gt, lq) if path is not None]
    missing = [path for path in wanted if not path.is_dir()]
    if test.listing is not None and not (root / test.listing).is_file():
        missing.append(root / test.listing)
    if missing:
        raise UserError(_instructions(test, root, missing, offer_degrade=missing == [lq]))
    if test.listing is not None:
        names = (root / test.listing).read_text().split()
    else:
        names = sorted(path.name for path in gt.iterdir() if path.is_dir())
    listed = test.listing is not None
    clips = [(clip, gt / clip, None if lq is None else lq / clip) for clip in names]
    absent = [str(p) for _, *paths in clips for p in paths if p is not None and not p.is_dir()]
    if absent:
        raise UserError(
            f"{test.title}: {len(absent)} folders of clips are missing, such as {absent[0]}. "
            f"Input and ground truth need the same clips; fetch {test.fetch}."
        )
    return [TestClip(*clip, listed) for clip in clips]


def _instructions(test: TestSet, root: Path, missing: list[Path], *, offer_degrade: bool) -> str:
    layout = "/im1.png to im7.png" if test.listing else "/*.png (or .jpg)"
    lines = [f"{test.title} is not there: {', '.join(map(str, missing))} missing."]
    lines += [f"  fetch {test.fetch}"]
    if test.dataset:
        command = published.command(test.dataset, str(root))
        if test.kind and not DATASETS[test.dataset].needs_lq:
            command += f" --lq {test.kind}"
        lines += [f"  then run: {command}"]
    lines += [
        f"  or put the clips into {path}/<clip>{layout}" for path in missing if not path.suffix
    ]
    if offer_degrade and test.degradation:
        lines.append(f"  or pass --degrade: the input is then made of the ground truth "
                     f"({test.degradation}, x4)")  # fmt: skip
    return "\n".join(lines)
