"""How a clip is restored: one object from the command line down to the network."""

import dataclasses
from collections.abc import Iterable, Sequence

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Size
from rvrt_jax.restoration import sliding
from rvrt_jax.restoration.ensemble import ENSEMBLES

AXES = ("frames", "height", "width")


@dataclasses.dataclass(frozen=True)
class RestoreSettings:
    """How a clip is restored, whatever the network; `checked` fits it to one."""

    # (frames, height, width) in input pixels, 0 for a whole axis. None: the whole clip at once.
    # "auto": the largest pieces that fit the free memory. "published": for test sets only.
    # Networks with a window take the first number as the windows that are computed at once.
    tile: Sequence[int] | str | None = None
    # What neighbouring tiles share, in the same units. None: as published, for test sets only.
    overlap: Sequence[int] | None = (2, 20, 20)
    # The noise level on the scale of 0-255, for networks that take one; 0 is a level.
    sigma: float | None = None
    # Which frames stand in where a window reaches beyond the clip: a name in `sliding.RULES`.
    # None: the published rule of the network. Clips too short for a rule get "replicate".
    border: str | None = None
    # 4: the mean over flipped runs. 8: over flipped and transposed ones.
    ensemble: int = 1
    # Rounds to 8 bits what goes from the first of two networks to the second, as published.
    quantise: bool = False

    def checked(self, model: Network) -> "RestoreSettings":
        """Returns these settings with tile and overlap as triples.

        Raises UserError for what no network can do, and for what this one has no use for or lacks.
        """
        _check_model_options(self, model)
        tile = (0, 0, 0) if self.tile is None else self.tile
        if isinstance(tile, str):
            if tile != "auto":
                raise UserError(f'tile is "{tile}"; give three numbers, None, or "auto".')
            return dataclasses.replace(self, overlap=_triple("overlap", self.overlap))
        tile, overlap = _triple("tile", tile), _triple("overlap", self.overlap)
        if model.window is not None:  # windows slide: tiles share no frames
            overlap = 0, overlap[1], overlap[2]
        for axis, size, shared in zip(AXES, tile, overlap, strict=True):
            if 0 < size <= shared:
                raise UserError(
                    f"tile of {size} does not exceed its overlap of {shared} ({axis}). Pass a "
                    f"tile of at least {shared + 1}, 0 for the whole axis, or a smaller overlap."
                )
        return dataclasses.replace(self, tile=tile, overlap=overlap)

    @property
    def tile_size(self) -> Size:
        """The tile as three numbers; after `checked`, and not of an automatic one."""
        assert isinstance(self.tile, tuple)
        t, h, w = self.tile
        return t, h, w

    @property
    def overlap_size(self) -> Size:
        """The overlap as three numbers; after `checked`."""
        assert isinstance(self.overlap, tuple)
        t, h, w = self.overlap
        return t, h, w

    def without_unused(self, model: Network) -> "RestoreSettings":
        """Returns these settings without the options that the network has no use for."""
        return dataclasses.replace(
            self,
            sigma=self.sigma if model.takes_noise_level else None,
            border=self.border if model.window is not None else None,
        )


def _triple(what: str, numbers) -> Size:
    numbers = tuple(numbers) if isinstance(numbers, Iterable) else (numbers,)
    whole = all(not isinstance(n, str) and int(n) == n and n >= 0 for n in numbers)
    if len(numbers) != 3 or not whole:
        raise UserError(
            f"{what} is {numbers}; give three whole numbers >= 0: frames, height, width."
        )
    t, h, w = map(int, numbers)
    return t, h, w


def _check_model_options(settings: RestoreSettings, model: Network) -> None:
    sigma, border, ensemble = settings.sigma, settings.border, settings.ensemble
    if not model.takes_noise_level and sigma is not None:
        raise UserError(f"sigma is {sigma}, but this model takes no noise level; leave it out.")
    if model.takes_noise_level:
        if sigma is None:
            raise UserError("this model needs the noise level: give sigma (--sigma), 0 to 255.")
        if not 0 <= sigma <= 255:
            raise UserError(f"sigma is {sigma}; give a noise level from 0 to 255.")
    if ensemble not in ENSEMBLES:
        raise UserError(f"ensemble is {ensemble}; give 1 (none), 4 (flips) or 8 (and transposed).")
    if model.window is not None:
        sliding.check(model, border or str(model.border))
    elif border is not None:
        raise UserError(
            f"border is {border!r}, but this model takes whole clips, not windows; leave it out."
        )
