"""Restoring frames and scoring them, for all that do both.

As published: on frames clamped to [0, 1] and rounded to 8 bit, with no border cropped.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation.lpips import lpips
from rvrt_jax.evaluation.metrics import frame_scores
from rvrt_jax.evaluation.warping_error import warping_error
from rvrt_jax.media.frames import to_float, to_uint
from rvrt_jax.models.contract import Network, Params
from rvrt_jax.restoration.restore import restore_stream
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import catalogue
from rvrt_jax.weights import load as loading
from rvrt_jax.weights import lpips as lpips_weights

# What can be measured. PSNR and SSIM of a frame are computed in RGB and in luma.
PSNR, SSIM, LPIPS, WARP = "psnr", "ssim", "lpips", "warp"
NAMES = (PSNR, SSIM, LPIPS, WARP)
LPIPS_WEIGHTS = "lpips_alex"  # the classifier that papers on video take


@dataclasses.dataclass(frozen=True)
class ScoredFrame:
    """A restored frame and the true one, uint8 RGB [h, w, 3], and its scores by name."""

    restored: np.ndarray
    truth: np.ndarray
    scores: dict[str, float]


def networks(names: Sequence[str]) -> dict[str, Params]:
    """Returns the parameters of the networks that some scores of `NAMES` need, by score.

    Raises UserError for an unknown name, for a name given twice, and, with the command that fetches
    them, if the weights of LPIPS are not there.
    """
    wrong = [name for name in names if name not in NAMES or names.count(name) > 1]
    if wrong or not names:
        raise UserError(f"metrics {','.join(names)}; choose some of {','.join(NAMES)}, each once.")
    found = {}
    if LPIPS in names:
        path, _ = catalogue.find(LPIPS_WEIGHTS)
        found[LPIPS] = lpips_weights.load("alex", str(path))
    if WARP in names:
        found[WARP] = loading.spynet_params()
    return found


class ClipScores:
    """Scores the frames of a clip in order.

    names: of `NAMES`. networks: as `networks` returns them for these. The scores of a frame are
    psnr_rgb, psnr_y, ssim_rgb, ssim_y, lpips and, of all but the first frame, warping and
    warping_true, as `evaluation.warping_error` defines them.
    """

    def __init__(
        self, names: Sequence[str] = (PSNR, SSIM), networks: Mapping[str, Params] | None = None
    ) -> None:
        self._names, self._networks = names, networks or {}
        self._before: np.ndarray | None = None

    def add(self, restored: np.ndarray, truth: np.ndarray) -> ScoredFrame:
        """Scores the next frame: each [h, w, 3], integers, or float in [0, 1]."""
        restored, truth = to_8_bits(restored), to_8_bits(truth)
        every = frame_scores(restored, truth)
        scores = {key: value for key, value in every.items() if key.split("_")[0] in self._names}
        if self._networks:
            pair = to_float(np.stack([restored, truth]))
            if LPIPS in self._networks:
                scores["lpips"] = float(lpips(self._networks[LPIPS], *pair))
            if WARP in self._networks and self._before is not None:
                frames, truths = np.stack([self._before, pair], axis=1)
                errors = np.asarray(warping_error(self._networks[WARP], frames, truths))
                scores |= {"warping": float(errors[0]), "warping_true": float(errors[1])}
            self._before = pair
        return ScoredFrame(restored, truth, scores)


def score_frame(restored: np.ndarray, truth: np.ndarray) -> ScoredFrame:
    """Returns PSNR and SSIM of a frame: each [h, w, 3], integers, or float in [0, 1]."""
    return ClipScores().add(restored, truth)


def restore_and_score(
    model: Network,
    params: Params,
    frames: Iterable[np.ndarray],
    truth: Iterable[np.ndarray],
    settings: RestoreSettings,
    *,
    scores: ClipScores | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[ScoredFrame]:
    """Restores a clip as `restore_stream` does, and scores each frame against the true one.

    scores: what to measure; PSNR and SSIM by default. Raises ValueError if there are not as many
    true frames as frames.
    """
    scores = scores or ClipScores()
    restored = restore_stream(model, params, frames, settings, progress=progress)
    return (scores.add(one, true) for one, true in zip(restored, truth, strict=True))


def to_8_bits(frame: np.ndarray) -> np.ndarray:
    """Returns a frame, of integers or float in [0, 1], clamped and rounded to uint8."""
    if frame.dtype == np.uint8:
        return frame
    return to_uint(to_float(frame) if frame.dtype.kind == "u" else frame, 8)
