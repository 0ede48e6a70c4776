"""What a recipe says about its data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rvrt_jax.data.degrade import DEGRADATIONS
from rvrt_jax.data.published import DATASETS
from rvrt_jax.errors import UserError

NOISE, GIVEN, MOTION_BLUR = "noise", "given", "motion_blur"
KINDS = ("real", "own", *DATASETS)  # of training data; of validation data also:
BUNDLED, NONE = "bundled", "none"


@dataclass(frozen=True)
class Options:
    """The meaning of `config.data`.

    dataset: "real" (fetched by rvrt_jax.data.prepare), "own" (plain folders of images and video
    files) or a published set (prepared by it). root: where that is; of a published set what was
    the --output. lq_root: degraded frames of your own, clips named as in root.
    exclude: names of clips and photos to leave out.
    num_frames, gt_size: of a sample, in frames and pixels of the ground truth.
    scale: GT size over LQ size. degradation: how LQ comes about: "bicubic", "blur_down" (scale 4),
    "noise" or "motion_blur" (scale 1), or "given" with the data.
    sigma: range of the noise level in 8-bit levels, one for each sample, handed to the network as
    a fourth channel sigma / 255.
    blur_steps: motion blur: moments that an exposure by the virtual camera averages, odd.
    blur_frames: the most neighbouring frames that are averaged of a video as filmed, odd; 1: such
    samples see one of its frames through the camera instead. Both average linear light.
    mirror: appends the sample in reverse, after augmentation, which doubles the frames.
    photo_fraction: samples made from photos. camera_fraction: video samples seen by a virtual
    camera. parallax_fraction: photo samples with a second layer.
    max_speed: of the virtual camera, in LR pixels a frame. max_zoom: how far a source is shrunk.
    reverse_fraction: samples played backwards. tries: places drawn for each sample, of which the
    one with the most detail and motion is taken.
    num_workers: worker processes; 0 = num_threads threads. prefetch: samples made ahead.
    validation_dataset: as dataset, or "bundled" (the clips of the package) or "none". Its root and
    lq_root are validation_root and validation_lq_root. validation_clips: that many clips, evenly
    chosen; validation_names: those of the dataset "real", which are not trained on;
    validation_frames: the first so many of each; validation_size: a square of so many GT pixels
    from the middle; 0 = all. validation_sigma: noise level there.
    """

    dataset: str = "real"
    root: str = "data/real"
    lq_root: str = ""
    exclude: tuple[str, ...] = ()
    num_frames: int = 6
    gt_size: int = 128
    scale: int = 4
    degradation: str = "bicubic"
    sigma: tuple[float, float] = (0.0, 50.0)
    blur_steps: int = 17
    blur_frames: int = 5
    mirror: bool = False
    photo_fraction: float = 0.5
    camera_fraction: float = 0.5
    parallax_fraction: float = 0.3
    max_speed: float = 4.0
    max_zoom: float = 2.5
    reverse_fraction: float = 0.5
    tries: int = 3
    num_workers: int = 0
    num_threads: int = 2
    prefetch: int = 16
    validation_dataset: str = BUNDLED
    validation_root: str = "data"
    validation_lq_root: str = ""
    validation_clips: int = 0
    validation_names: tuple[str, ...] = ()
    validation_frames: int = 0
    validation_size: int = 0
    validation_sigma: float = 30.0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Options":
        """Builds options from a mapping; raises UserError on an unknown key or a bad value."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise UserError(f"data has no option {unknown}. There are {sorted(known)}.")
        keys = ("exclude", "sigma", "validation_names")
        tuples = {key: tuple(config[key]) for key in keys if key in config}
        options = cls(**{**config, **tuples})
        options._check_names()
        options._check_sizes()
        options._check_degradation()
        return options

    @property
    def margin(self) -> int:
        """GT pixels round a crop that reach into its LR: 2 LR pixels, at least half a kernel."""
        return 0 if self.scale == 1 else 2 * self.scale

    @property
    def channels(self) -> int:
        """Of LQ frames."""
        return 4 if self.degradation == NOISE else 3

    @property
    def sample_frames(self) -> int:
        """Frames that the network sees."""
        return self.num_frames * (2 if self.mirror else 1)

    def _check_names(self) -> None:
        for key, known in (
            ("dataset", KINDS),
            ("validation_dataset", (*KINDS, BUNDLED, NONE)),
            ("degradation", (*DEGRADATIONS, NOISE, MOTION_BLUR, GIVEN)),
        ):
            if getattr(self, key) not in known:
                raise UserError(f"data.{key} is {getattr(self, key)!r}; there are {list(known)}.")

    def _check_sizes(self) -> None:
        for key in ("num_frames", "gt_size", "scale", "tries", "num_threads", "prefetch"):
            if getattr(self, key) < 1:
                raise UserError(f"data.{key} is {getattr(self, key)}; it must be at least 1.")
        for key in ("num_workers", "validation_clips", "validation_frames", "validation_size"):
            if getattr(self, key) < 0:
                raise UserError(f"data.{key} is {getattr(self, key)}; it must be at least 0.")
        for key in ("photo_fraction", "camera_fraction", "parallax_fraction", "reverse_fraction"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"data.{key} is {getattr(self, key)}; give 0 to 1.")
        for key in ("gt_size", "validation_size"):
            if getattr(self, key) % self.scale:
                raise UserError(
                    f"data.{key} is {getattr(self, key)}, not a multiple of scale {self.scale}."
                )

    def _check_degradation(self) -> None:
        fitting = {NOISE: self.scale == 1, MOTION_BLUR: self.scale == 1}
        fitting |= {"blur_down": self.scale == 4, "bicubic": self.scale > 1}
        if not fitting.get(self.degradation, True):
            raise UserError(
                f"data.degradation is {self.degradation!r}, which does not go with data.scale "
                f"{self.scale}."
            )
        for key in ("blur_steps", "blur_frames"):
            if getattr(self, key) < 1 or getattr(self, key) % 2 == 0:
                raise UserError(
                    f"data.{key} is {getattr(self, key)}; it must be odd, so that the sharp frame "
                    "is the middle of the exposure."
                )
        if (self.validation_dataset == "real") != bool(self.validation_names):
            raise UserError(
                f"data.validation_dataset is {self.validation_dataset!r} and data.validation_names "
                f"{self.validation_names}: name the clips to hold out of training where, and only "
                "where, the dataset is 'real'."
            )
        if len(self.sigma) != 2 or not 0 <= self.sigma[0] <= self.sigma[1]:
            raise UserError(f"data.sigma is {self.sigma}; give (lowest, highest), 0 or more.")
        if self.lq_root and (self.dataset, self.degradation) != ("own", GIVEN):
            raise UserError(
                f"data.lq_root is {self.lq_root}: that is for dataset 'own' and degradation "
                f"'given', not {self.dataset!r} and {self.degradation!r}."
            )
        if self.dataset == "real" and self.degradation == GIVEN:
            raise UserError("dataset 'real' has no degraded frames; choose another degradation.")
        if self.dataset == "own" and self.degradation == GIVEN and not self.lq_root:
            raise UserError("data.degradation is 'given': name the degraded frames in lq_root.")
