"""The data sets of the published recipes: where they come from and how they are laid out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """title: of the set. source: where it is offered. files: what to fetch. layout: of the folders
    below the root, as the archives unpack or as they must be moved. counts: to check them by.
    """

    title: str
    source: str
    files: str
    layout: str
    counts: str


DATASETS = {
    "reds": Published(
        "REDS",
        "https://seungjunnah.github.io/Datasets/reds.html",
        "train_sharp.zip and val_sharp.zip",
        "train_sharp/000/00000000.png; the 30 validation clips renamed to 240-269",
        "270 clips of 100 frames; 000, 011, 015 and 020 are the test set REDS4",
    ),
    "vimeo": Published(
        "Vimeo-90K septuplets",
        "http://toflow.csail.mit.edu",
        "vimeo_septuplet.zip (82 GB)",
        "sequences/00001/0001/im1.png to im7.png, sep_trainlist.txt, sep_testlist.txt",
        "64612 training and 7824 test clips of 7 frames",
    ),
    "dvd": Published(
        "DVD",
        "https://www.cs.ubc.ca/labs/imager/tr/2017/DeepVideoDeblurring/",
        "DeepVideoDeblurring_Dataset.zip",
        "quantitative_datasets/<clip>/GT/00000.jpg and .../<clip>/input/00000.jpg",
        "61 training clips with 5708 frames, 10 test clips",
    ),
    "gopro": Published(
        "GoPro",
        "https://seungjunnah.github.io/Datasets/gopro.html",
        "GOPRO_Large.zip (the blur without gamma)",
        "train/<clip>/sharp/000001.png and train/<clip>/blur/000001.png",
        "22 training clips with 2103 frames, 11 test clips with 1111",
    ),
    "davis": Published(
        "DAVIS 2017",
        "https://davischallenge.org/davis2017/code.html",
        "DAVIS-2017-trainval-480p.zip",
        "JPEGImages/480p/<clip>/00000.jpg",
        "90 training clips with 6208 frames",
    ),
}


def instructions(name: str, root: str, *, scale: int) -> str:
    """Says what a data set is, how to get it, and that it cannot be prepared yet."""
    data = DATASETS[name]
    text = (
        f"this recipe trains on {data.title}, which has to be fetched by hand:\n"
        f"  1. from {data.source} fetch {data.files}\n"
        f"  2. unpack into {root}: {data.layout}\n"
        f"     ({data.counts})\n"
        f"This version has no command yet that prepares {data.title} for training; what can be "
        "prepared is listed by: python -m rvrt_jax.data.prepare --help"
    )
    if scale == 4:
        text += (
            "\nTo train this network on that material instead, pass --config.dataset=real "
            "--config.data.root=data/real --config.data.num_frames=8"
        )
    return text
