"""Runs test sets by the published protocol; `report` shows what they score.

The scores of a clip are means over its frames (`score`), those of a set means over clips and,
where clips differ in length, means over all frames too. `test_sets` says how a set is tiled.

Two things cannot be as published. The noise of Set8 and DAVIS came from PyTorch's generator: ours
has the same distribution, drawn from seed 0 for each clip; `noise` gives the original one, at about
0.01 dB. The deblurring papers took SSIM from MATLAB, about 0.01 above this one (PSNR agrees).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from rvrt_jax import parallel
from rvrt_jax.data.degrade import DEGRADATIONS
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import report as reports
from rvrt_jax.evaluation.report import Frame
from rvrt_jax.evaluation.score import (
    PSNR,
    SSIM,
    WARP,
    ClipScores,
    ScoredFrame,
    networks,
    restore_and_score,
)
from rvrt_jax.evaluation.test_sets import MIDDLE, PUBLISHED, TEST_SETS, Job, TestClip, find, opened
from rvrt_jax.media.frames import to_float
from rvrt_jax.models.contract import Network, Params, slides
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.restore import restore_frame, restore_stream
from rvrt_jax.restoration.settings import RestoreSettings


@dataclasses.dataclass(frozen=True)
class ProtocolOptions:
    """How test sets are run."""

    # Folder of the test sets.
    data: Path
    # How clips are restored. Tile "published" and overlap None: as each set was published.
    settings: RestoreSettings = RestoreSettings(tile="published", overlap=None)
    # Makes an input that is missing of the ground truth.
    degrade: bool = False
    # Folder with <clip>.npy, standard normal noise [t, 3, h, w], for denoising.
    noise: Path | None = None
    # What is measured, of `score.NAMES`.
    metrics: tuple[str, ...] = (PSNR, SSIM, WARP)


def run(
    model: Network,
    params: Params,
    sets: Sequence[str],
    options: ProtocolOptions,
    *,
    output: Path,
    published: str | None = None,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs `sets`, prints the table, and writes scores.md, .csv (per frame) and .json to `output`.

    The clips are shared out over the local devices. published: whose numbers of
    `test_sets.PUBLISHED` to print beside. about: what else the JSON should tell, which is returned.
    Raises UserError, before anything is computed, for unknown sets and metrics, missing data and
    weights of metrics, and clips whose frames do not fit the ground truth or the model.
    """
    _check(model, sets, options, published)
    measuring = networks(options.metrics)
    jobs = [
        Job(key, TEST_SETS[key], sigma, clip)
        for key in sets
        for clip in find(key, options.data, degrade=options.degrade)
        for sigma in TEST_SETS[key].levels
    ]
    for key in sets:
        _check_frames([job for job in jobs if job.key == key], model.scale, options.noise)
    bar = tqdm(total=len(jobs), unit=" clips", dynamic_ncols=True)

    @functools.cache
    def on(device: parallel.Device) -> tuple[Any, Any]:
        return jax.device_put((params, measuring), device)

    def score(device: parallel.Device, job: Job) -> list[Frame]:
        weights, measuring_here = on(device)
        frames = list(score_clip(model, weights, job, options, measuring_here))
        bar.update()
        return frames

    with bar:
        scores = parallel.share_devices(score, jobs)
    report = {
        **(about or {}),
        "protocol": _about(options),
        "sets": reports.summarise_sets(jobs, scores, published),
    }
    print(reports.table(report["sets"]))
    reports.write(output, report, jobs, scores)
    return report


def score_clip(
    model: Network, params: Params, job: Job, options: ProtocolOptions, measuring: Params
) -> Iterator[Frame]:
    """Yields the scores of each frame that counts: of a septuplet the middle one.

    measuring: the networks of the metrics, as `score.networks` returns them.
    """
    scores = ClipScores(options.metrics, measuring)
    for frame in _restored(model, params, job, options, scores):
        yield frame.scores


def _restored(
    model: Network, params: Params, job: Job, options: ProtocolOptions, scores: ClipScores
) -> Iterator[ScoredFrame]:
    """Yields the frames that count, restored and scored."""
    settings = _settings_for(model, params, job, options)
    truth = opened(job.clip.truth)
    frames = _input(job, options, model.scale)
    if not job.clip.listed:
        yield from restore_and_score(model, params, frames, truth, settings, scores=scores)
        return
    video = list(frames)
    (middle,) = truth
    if slides(model):  # these were given the septuplet as it is
        result = restore_frame(model, params, video, MIDDLE, settings)
    else:
        restored = list(restore_stream(model, params, video + video[::-1], settings))
        result = (restored[MIDDLE] + restored[-1 - MIDDLE]) / 2
    yield scores.add(result, middle)


def _input(job: Job, options: ProtocolOptions, scale: int) -> Iterator[np.ndarray]:
    """Yields the frames that the network gets."""
    if job.clip.lq is not None:
        yield from opened(job.clip.lq)
    elif job.sigma is not None:
        noise = _noise(job.clip, options.noise)
        for frame in opened(job.clip.gt):
            level = np.float32(job.sigma / 255)
            yield to_float(frame) + level * noise(frame.shape)
    else:
        for frame in opened(job.clip.gt):
            yield DEGRADATIONS[job.test.degradation](frame, scale)


def _noise(clip: TestClip, folder: Path | None) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Returns a function from a frame's shape to its noise, float32 [h, w, 3], frame by frame."""
    if folder is None:
        rng = np.random.default_rng(0)
        return lambda shape: rng.standard_normal(shape, np.float32)
    frames = iter(np.load(_noise_file(clip, folder), mmap_mode="r"))
    return lambda shape: np.moveaxis(next(frames), 0, -1).astype(np.float32)


def _noise_file(clip: TestClip, folder: Path) -> Path:
    return folder / f"{clip.name}.npy"


def _settings_for(
    model: Network, params: Params, job: Job, options: ProtocolOptions
) -> RestoreSettings:
    """Returns the settings of a clip, its tile chosen."""
    settings = options.settings
    overlap = settings.overlap or job.test.overlap
    settings = dataclasses.replace(settings, overlap=overlap, sigma=job.sigma)
    if settings.tile == "published":
        # Networks with a window (EDVR) were published with whole frames.
        return dataclasses.replace(settings, tile=job.test.tile if model.window is None else None)
    settings = settings.checked(model)
    if settings.tile != "auto":
        return settings
    with opened(job.clip.lq or job.clip.gt) as source:
        shrink = model.scale if job.clip.lq is None and job.sigma is None else 1
        length = 2 * source.length if job.clip.listed else source.length
        size = (length, source.height // shrink, source.width // shrink)
    plan = plan_tiles(model, params, size, settings)
    return dataclasses.replace(settings, tile=plan.tile)


def _check(
    model: Network, sets: Sequence[str], options: ProtocolOptions, published: str | None
) -> None:
    unknown = [key for key in sets if key not in TEST_SETS]
    if unknown or not sets:
        raise UserError(f"test sets {unknown or 'none'}; choose from {', '.join(TEST_SETS)}.")
    if published is not None and published not in PUBLISHED:
        raise UserError(f"nothing is published of {published!r}; known are {list(PUBLISHED)}.")
    tile, overlap = options.settings.tile, options.settings.overlap
    dataclasses.replace(
        options.settings,
        tile=None if tile == "published" else tile,
        overlap=(0, 0, 0) if overlap is None else overlap,
        sigma=0 if model.takes_noise_level else None,
    ).checked(model)
    for key in sets:
        noisy = TEST_SETS[key].degradation == "noise"
        if noisy != (model.takes_noise_level):
            takes = "takes" if model.takes_noise_level else "takes no"
            raise UserError(
                f"{key} is a test of {'denoising' if noisy else 'clean input'}, but the model "
                f"{takes} noise level. Choose other --sets or weights."
            )


def _check_frames(jobs: list[Job], scale: int, noise: Path | None) -> None:
    """Raises UserError if the clips of a set do not have its frames, or one does not fit."""
    test = jobs[0].test
    once = [job for job in jobs if job.sigma == test.levels[0]]
    total = sum(_check_clip(job, scale, noise) for job in once)
    if test.frames not in (0, total):
        raise UserError(
            f"{test.title} has {test.frames} frames, but {total} are there, {jobs[0].clip.gt} and "
            f"so on. Fetch {test.fetch} again."
        )


def _check_clip(job: Job, scale: int, noise: Path | None) -> int:
    """Returns the length of a clip.

    Raises UserError if input, noise and ground truth differ in length, or in size but for `scale`.
    """
    with opened(job.clip.truth) as truth:
        size, length = (truth.height, truth.width), truth.length
    if job.sigma is not None and noise is not None:
        file = _noise_file(job.clip, noise)
        shape = np.load(file, mmap_mode="r").shape
        if shape != (length, 3, *size):
            raise UserError(
                f"{file} holds noise {shape}; {job.clip.gt} needs (frames, 3, height, width) = "
                f"{(length, 3, *size)}."
            )
    if job.clip.lq is None:
        if job.sigma is None and (size[0] % scale or size[1] % scale):
            raise UserError(
                f"{job.clip.gt} is {size[1]}x{size[0]}, no multiple of {scale}, so that --degrade "
                "cannot make its input. Give the published input."
            )
        return length
    with opened(job.clip.lq) as source:
        expected = 7 if job.clip.listed else length
        if source.length != expected:
            raise UserError(
                f"{job.clip.lq} has {source.length} frames; {expected} belong to {job.clip.gt}."
            )
        if (source.height * scale, source.width * scale) != size:
            raise UserError(
                f"{job.clip.lq} is {source.width}x{source.height}, which at the model's scale "
                f"{scale} does not become the {size[1]}x{size[0]} of {job.clip.gt}. Choose the "
                "weights or the set that go with it."
            )
    return length


def _about(options: ProtocolOptions) -> dict[str, Any]:
    """Returns the options as the JSON of the scores has them."""
    settings = options.settings
    return {
        "data": str(options.data),
        "degrade": options.degrade,
        "noise": "seed 0" if options.noise is None else str(options.noise),
        "tile": settings.tile,
        "overlap": settings.overlap,
        "border": settings.border,
        "ensemble": settings.ensemble,
        "metrics": options.metrics,
    }
