"""What a recipe says about its data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rvrt_jax.data.degrade import DEGRADATIONS
from rvrt_jax.data.published import DATASETS
from rvrt_jax.errors import UserError

NOISE, GIVEN, MOTION_BLUR = "noise", "given", "motion_blur"
# Of training data: what rvrt_jax.data.prepare fetches, plain folders of images and video files, and
# the published sets that it prepares (their test clips, in validation). Of validation data also the
# three below.
KINDS = ("real", "own", *DATASETS)
BUNDLED, NONE = "bundled", "none"
HELD_OUT = "held_out"  # clips of the training data, which are then not trained on


@dataclass(frozen=True)
class DataOptions:
    """The meaning of `config.data`. Sizes are in pixels; GT is the sharp video, LQ the degraded."""

    dataset: str = "real"  # one of KINDS: see there
    root: str = "data/real"  # where that is; of a published set what was the --output
    lq_root: str = ""  # "own": degraded frames, clips named as in root
    exclude: tuple[str, ...] = ()  # names of clips and photos to leave out
    num_frames: int = 6  # of a sample
    gt_size: int = 128  # height and width of a sample's GT
    scale: int = 4  # GT size over LQ size
    # How LQ comes about: "bicubic", "blur_down" (scale 4), "noise" or "motion_blur" (scale 1), or
    # "given".
    degradation: str = "bicubic"
    # "noise": range of the level in 8-bit steps; each sample has one, and sigma / 255 is handed to
    # the network as a fourth channel.
    sigma: tuple[float, float] = (0.0, 50.0)
    # "motion_blur" averages linear light: so many moments of the virtual camera, or at most so many
    # neighbouring frames of a video. Both are odd. With blur_frames = 1 a camera sees all videos.
    blur_steps: int = 17
    blur_frames: int = 5
    mirror: bool = False  # appends the sample in reverse, after augmentation: twice the frames
    photo_fraction: float = 0.5  # of samples that are made from photos
    camera_fraction: float = 0.5  # of video samples that a virtual camera sees
    parallax_fraction: float = 0.3  # of photo samples with a second layer
    max_speed: float = 4.0  # of the virtual camera, in LQ pixels a frame
    max_zoom: float = 2.5  # how far the virtual camera shrinks a source
    reverse_fraction: float = 0.5  # of samples that are played backwards
    tries: int = 3  # places drawn for each sample; the one with most detail and motion is taken
    num_workers: int = 0  # worker processes; 0: threads, ...
    num_threads: int = 2  # ... so many
    prefetch: int = 16  # samples made ahead
    validation_dataset: str = BUNDLED  # as dataset, or "held_out", "bundled", "none"
    validation_root: str = "data"
    validation_lq_root: str = ""
    validation_clips: int = 0  # how many, evenly chosen; 0: all
    validation_names: tuple[str, ...] = ()  # of "held_out", instead of how many
    validation_frames: int = 0  # the first so many of each clip; 0: all
    validation_size: int = 0  # a square of so many GT pixels from the middle; 0: whole frames
    validation_sigma: float = 30.0  # "noise": the level there

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "DataOptions":
        """Builds options from a mapping.

        Raises UserError for an unknown key, a bad value, and a value other than the default that
        has no effect beside the others.
        """
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
        options._check_effects()
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
            ("validation_dataset", (*KINDS[1:], HELD_OUT, BUNDLED, NONE)),
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
        self._check_held_out()
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
        given = (self.validation_dataset, self.degradation) == ("own", GIVEN)
        if given and not self.validation_lq_root:
            raise UserError(
                "data.degradation is 'given': name the degraded frames to validate on in "
                "validation_lq_root, or set validation_dataset to 'none'."
            )

    def _check_held_out(self) -> None:
        held, names = self.validation_dataset == HELD_OUT, self.validation_names
        if names and not held:
            raise UserError(
                f"data.validation_names is {names}: that is for validation_dataset 'held_out', not "
                f"{self.validation_dataset!r}."
            )
        if held and not names and not self.validation_clips:
            raise UserError(
                "data.validation_dataset is 'held_out': name the clips in validation_names, or "
                "say in validation_clips how many."
            )

    def _check_effects(self) -> None:
        """Refuses what was set and changes nothing.

        Fractions of 0 say what happens anyway, and validation_dataset "none" is a switch that may
        leave the other options of validation as they are.
        """
        photos, given = self.photo_fraction > 0, self.degradation == GIVEN
        films, noise = self.photo_fraction < 1 and not given, self.degradation == NOISE
        camera = photos or (films and self.camera_fraction > 0)
        off, own = self.validation_dataset == NONE, self.validation_dataset == "own"
        held, blurred = self.validation_dataset == HELD_OUT, self.degradation == MOTION_BLUR
        for key, effective, why in (
            ("sigma", noise, f"degradation is {self.degradation!r}, not 'noise'"),
            ("blur_steps", blurred, f"degradation is {self.degradation!r}, not 'motion_blur'"),
            ("blur_frames", blurred, f"degradation is {self.degradation!r}, not 'motion_blur'"),
            ("camera_fraction", films, "clips come with LQ of their own, or only photos are drawn"),
            ("parallax_fraction", photos, "photo_fraction is 0"),
            ("max_speed", camera, "there is no virtual camera"),
            ("max_zoom", camera, "there is no virtual camera"),
            ("num_threads", not self.num_workers, f"num_workers is {self.num_workers}"),
            ("validation_root", self.validation_dataset != BUNDLED, "the package has the clips"),
            ("validation_root", not held, "the clips are those of root"),
            ("validation_lq_root", off or (own and given), "no degraded frames are read there"),
            ("validation_sigma", off or noise, f"degradation is {self.degradation!r}, not 'noise'"),
        ):
            value, default = getattr(self, key), getattr(DataOptions, key)
            says_so = key.endswith("_fraction") and value == 0
            if not effective and value != default and not says_so:
                raise UserError(
                    f"data.{key} is {value}, which has no effect: {why}. Leave it out (its default "
                    f"is {default!r})."
                )
