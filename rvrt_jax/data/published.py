"""The published data sets: where they come from, how their archives are laid out, what they hold.

Everything that prepares or names these sets reads it here. Sources: recipes of the papers; the test
clips of DVD are those its authors name (github.com/shuochsu/DeepVideoDeblurring, issue 2), those of
REDS are the usual REDS4.
"""

from dataclasses import dataclass, field

CLEAN = "clean"  # what a set prepared without degraded frames is called, instead of their kind
REDS4 = ("000", "011", "015", "020")
DVD10 = (
    *("720p_240fps_2", "IMG_0003", "IMG_0021", "IMG_0030", "IMG_0031", "IMG_0032"),
    *("IMG_0033", "IMG_0037", "IMG_0039", "IMG_0049"),
)


@dataclass(frozen=True)
class Split:
    """Which of the clips found belong to a split, and how many there must be; 0: not known.

    clips, frames: in all. length: frames of every clip; shortest: at least. only, without: names.
    listed_in: text file in the source with a name a line.
    """

    clips: int
    frames: int = 0
    length: int = 0
    shortest: int = 1
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    listed_in: str = ""


@dataclass(frozen=True)
class Published:
    """A data set.

    title, source, files: name, where it is offered, what to fetch there.
    gt: paths of the frames in the archives, one of which fits; <clip> stands for one folder's name,
    <clip/clip> for two, <frame> for an image's. lq: the same for degraded frames that can be had,
    by kind. renumber: added to clip numbers in paths that contain a name (REDS counts its
    validation clips from 0 again). needs_lq: the set is about these degraded frames; else they are
    best made during training. scale: GT size over LQ size.
    """

    title: str
    source: str
    files: str
    gt: tuple[str, ...]
    splits: dict[str, Split]
    lq: dict[str, tuple[str, ...]] = field(default_factory=dict)
    renumber: dict[str, int] = field(default_factory=dict)
    needs_lq: bool = False
    scale: int = 4


_REDS = Published(
    "REDS",
    "https://seungjunnah.github.io/Datasets/reds.html",
    "train_sharp.zip and val_sharp.zip",
    gt=("train_sharp/<clip>/<frame>", "val_sharp/<clip>/<frame>"),
    lq={
        "bicubic": (
            "train_sharp_bicubic/X4/<clip>/<frame>",
            "val_sharp_bicubic/X4/<clip>/<frame>",
            "train_sharp_bicubic/<clip>/<frame>",
            "val_sharp_bicubic/<clip>/<frame>",
        )
    },
    renumber={"val_sharp/": 240, "val_sharp_bicubic/": 240},
    splits={"train": Split(266, frames=26_600, length=100, without=REDS4)},
)
_DVD = "https://www.cs.ubc.ca/labs/imager/tr/2017/DeepVideoDeblurring/"
_GOPRO = "https://seungjunnah.github.io/Datasets/gopro.html"
_DAVIS = "https://davischallenge.org/davis2017/code.html"

DATASETS = {
    "reds": _REDS,
    "reds4": Published(
        "REDS4, the test clips of REDS",
        _REDS.source,
        "train_sharp.zip",
        gt=("REDS4/GT/<clip>/<frame>", "train_sharp/<clip>/<frame>"),
        lq={
            "bicubic": (
                "REDS4/sharp_bicubic/<clip>/<frame>",
                "train_sharp_bicubic/X4/<clip>/<frame>",
                "train_sharp_bicubic/<clip>/<frame>",
            )
        },
        splits={"test": Split(4, frames=400, length=100, only=REDS4)},
    ),
    "vimeo": Published(
        "Vimeo-90K, septuplets",
        "http://toflow.csail.mit.edu",
        "vimeo_septuplet.zip (82 GB)",
        gt=("vimeo_septuplet/sequences/<clip/clip>/<frame>",),
        lq={
            "bicubic": (
                "vimeo_septuplet_matlabLRx4/sequences/<clip/clip>/<frame>",
                "vimeo_septuplet_matlabLRx4/<clip/clip>/<frame>",
            ),
            "blur_down": (
                "vimeo_septuplet_BDLRx4/sequences/<clip/clip>/<frame>",
                "vimeo_septuplet_BDLRx4/<clip/clip>/<frame>",
            ),
        },
        splits={
            "train": Split(64_612, length=7, listed_in="sep_trainlist.txt"),
            "test": Split(7_824, length=7, listed_in="sep_testlist.txt"),
        },
    ),
    "dvd": Published(
        "DVD",
        _DVD,
        "DeepVideoDeblurring_Dataset.zip",
        gt=("quantitative_datasets/<clip>/GT/<frame>", "DVD/train_GT/<clip>/<frame>"),
        lq={
            "blurred": (
                "quantitative_datasets/<clip>/input/<frame>",
                "DVD/train_GT_blurred/<clip>/<frame>",
            )
        },
        splits={"train": Split(61, frames=5_708, shortest=35, without=DVD10)},
        needs_lq=True,
        scale=1,
    ),
    "dvd10": Published(
        "DVD10, the test clips of DVD",
        _DVD,
        "DeepVideoDeblurring_Dataset.zip",
        gt=("quantitative_datasets/<clip>/GT/<frame>", "DVD10/test_GT/<clip>/<frame>"),
        lq={
            "blurred": (
                "quantitative_datasets/<clip>/input/<frame>",
                "DVD10/test_GT_blurred/<clip>/<frame>",
            )
        },
        splits={"test": Split(10, frames=1_000, only=DVD10)},
        needs_lq=True,
        scale=1,
    ),
    "gopro": Published(
        "GoPro",
        _GOPRO,
        "GOPRO_Large.zip (of its two kinds of blur the one without gamma, blur/, is used)",
        gt=("train/<clip>/sharp/<frame>", "GoPro/train_GT/<clip>/<frame>"),
        lq={"blurred": ("train/<clip>/blur/<frame>", "GoPro/train_GT_blurred/<clip>/<frame>")},
        splits={"train": Split(22, frames=2_103, shortest=48)},
        needs_lq=True,
        scale=1,
    ),
    "gopro11": Published(
        "GoPro11, the test clips of GoPro",
        _GOPRO,
        "GOPRO_Large.zip (of its two kinds of blur the one without gamma, blur/, is used)",
        gt=("test/<clip>/sharp/<frame>", "GoPro11/test_GT/<clip>/<frame>"),
        lq={"blurred": ("test/<clip>/blur/<frame>", "GoPro11/test_GT_blurred/<clip>/<frame>")},
        splits={"test": Split(11, frames=1_111)},
        needs_lq=True,
        scale=1,
    ),
    "davis": Published(
        "DAVIS 2017, training and validation clips",
        _DAVIS,
        "DAVIS-2017-trainval-480p.zip",
        gt=("JPEGImages/480p/<clip>/<frame>", "DAVIS/train_GT/<clip>/<frame>"),
        splits={"train": Split(90, frames=6_208, shortest=25)},
        scale=1,
    ),
    "davis_test": Published(
        "DAVIS 2017, the 30 test-dev clips",
        _DAVIS,
        "DAVIS-2017-test-dev-480p.zip",
        gt=("JPEGImages/480p/<clip>/<frame>", "DAVIS-test/GT/<clip>/<frame>"),
        splits={"test": Split(30)},
        scale=1,
    ),
    "vid4": Published(
        "Vid4",
        "https://github.com/XPixelGroup/BasicSR/blob/master/docs/DatasetPreparation.md",
        "Vid4",
        gt=("Vid4/GT/<clip>/<frame>",),
        lq={"bicubic": ("Vid4/BIx4/<clip>/<frame>",), "blur_down": ("Vid4/BDx4/<clip>/<frame>",)},
        splits={"test": Split(4)},
    ),
    "udm10": Published(
        "UDM10",
        "https://github.com/psychopa4/PFNL",
        "the UDM10 testing set",
        gt=("UDM10/GT/<clip>/<frame>",),
        lq={"bicubic": ("UDM10/BIx4/<clip>/<frame>",), "blur_down": ("UDM10/BDx4/<clip>/<frame>",)},
        splits={"test": Split(10)},
    ),
    "set8": Published(
        "Set8",
        "https://github.com/m-tassano/fastdvdnet",
        "the Set8 testing set",
        gt=("Set8/GT/<clip>/<frame>", "Set8/<clip>/<frame>"),
        splits={"test": Split(8)},
        scale=1,
    ),
}


def command(name: str, root: str) -> str:
    """Returns the command that prepares a set for a recipe whose data.root is `root`."""
    return f"python -m rvrt_jax.data.prepare {name} --source downloads/{name} --output {root}"


def instructions(name: str, root: str) -> str:
    """Says what a data set is, how to get it, where to put it and what prepares it."""
    data = DATASETS[name]
    return (
        f"{root}/{name} holds no prepared {data.title}. It has to be fetched by hand:\n"
        f"  1. from {data.source} fetch {data.files}\n"
        f"  2. put that, packed or unpacked, into downloads/{name}; expected in it:\n"
        f"     {expected(name)}\n"
        f"  3. run: {command(name, root)}\n"
        f"     ({counts(name)})"
    )


def expected(name: str) -> str:
    """Returns the paths looked for, in words."""
    data = DATASETS[name]
    texts = [f"{' or '.join(data.gt)} (images)"]
    if data.needs_lq:
        texts += [" or ".join(paths) for paths in data.lq.values()]
    texts += [split.listed_in for split in data.splits.values() if split.listed_in]
    return ", ".join(texts)


def counts(name: str) -> str:
    """Returns how many clips and frames each split has, in words."""
    texts = []
    for split, wanted in DATASETS[name].splits.items():
        frames = wanted.frames or wanted.clips * wanted.length
        text = f"{split}: {wanted.clips} clips" + (f" with {frames} frames" if frames else "")
        texts.append(text + (f", without {', '.join(wanted.without)}" if wanted.without else ""))
    return "; ".join(texts)
