"""Restoring video of any size and length with any of the networks.

`model.apply` is the raw network and needs sizes that fit it; `restore` pads, tiles, runs, joins
and crops. Networks with a `window` (EDVR) make one frame of several: the window slides along the
video, which is never cut in time.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, Params, WindowNetwork
from rvrt_jax.restoration import sliding
from rvrt_jax.restoration.inputs import Frames, as_clip
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.runner import Device, Runner
from rvrt_jax.restoration.segments import Segment, segments
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.restoration.tiling import join_time

_log = logging.getLogger(__name__)

# No video in [0, 1] gets here, noise included; one in 0-255 that was made float nearly always does.
LARGEST_FLOAT = 16.0


def restore(
    model: Any,
    params: Params,
    frames: Frames,
    *,
    tile: Sequence[int] | str | None = None,
    overlap: Sequence[int] = (2, 20, 20),
    sigma: float | None = None,
    border: str | None = None,
    ensemble: int = 1,
    progress: Callable[[float], None] | None = None,
    diagnostics: dict[str, list] | None = None,
) -> np.ndarray:
    """Restores a clip of any height, width and length.

    model, params: as `load` returns them.
    frames: [t, h, w, 3], uint8, uint16, or float in [0, 1]; RGB. Or a list of such frames or of
        image files, or the path of a video file, a folder of images or a pattern of them.
    tile: None for the whole clip at once, (frames, height, width) in input pixels with 0 for a
        whole axis, or "auto" for a tile that fits the free memory. overlap: what tiles share.
        For models with a window, frames is how many windows are computed at once, 0 for one.
    sigma: noise level on the scale of 0-255, 0 included; for models with a noise channel only.
    border: which frames stand in where a window reaches beyond the clip: "replicate",
        "reflection", "reflection_circle" or "circle"; None for the model's published rule; for
        models with a window only. Clips too short for the rule get "replicate".
    ensemble: 4 or 8 for the mean over that many flipped (8: and transposed) runs.
    progress: called after each tile with the number of frames restored so far, as a float.
    diagnostics: a dict to fill with what the model says of itself, a list of values for each
        name: EDVR's offset_mean and offset_max, in pixels.
    Returns float32 [t, scale * h, scale * w, 3], not clipped to [0, 1].
    Raises UserError for frames that are not such a clip, a NaN in them, a tile that does not
    exceed its overlap, and an option that the model has no use for or lacks.
    """
    settings = RestoreSettings(tile, overlap, sigma, border, ensemble)
    clip = as_clip(frames)
    if isinstance(tile, str):
        settings = settings.checked(model)
        t, h, w, _ = clip.shape
        plan = plan_tiles(model, params, (t, h, w), settings)
        _log.info("%s", plan)
        settings = dataclasses.replace(settings, tile=plan.tile)
    options = {"progress": progress, "diagnostics": diagnostics}
    blocks = [np.asarray(b) for b in restored_blocks(model, params, [clip], settings, **options)]
    return np.array(blocks[0]) if len(blocks) == 1 else np.concatenate(blocks)


def restore_stream(
    model: Network,
    params: Params,
    frames: Iterable[np.ndarray],
    settings: RestoreSettings,
    *,
    progress: Callable[[float], None] | None = None,
    diagnostics: dict[str, list] | None = None,
) -> Iterator[np.ndarray]:
    """Restores a video frame by frame, with no more of it in memory than a few tiles in time.

    frames: yields [h, w, 3] arrays; any number of them if the tile has a length. settings: any but
    an automatic tile (`plan.plan_tiles` makes one). Yields float32 [scale * h, scale * w, 3].
    Raises as `restore` does.
    """
    options = {"progress": progress, "diagnostics": diagnostics}
    for block in restored_blocks(model, params, [frames], settings, **options):
        yield from (frame.copy() for frame in np.asarray(block))  # views would keep the block
        del block


def restore_frame(
    model: WindowNetwork,
    params: Params,
    frames: Sequence[np.ndarray],
    index: int,
    settings: RestoreSettings,
) -> np.ndarray:
    """Restores one frame of a short clip with a network that has a window, and no other.

    frames: each [h, w, 3]. index: whose number it is. settings: as for `restore_stream`, which
    gives the same frame among all. Returns float32 [scale * h, scale * w, 3].
    """
    settings = settings.checked(model)
    (scene,) = checked_scenes([frames])
    held = dict(enumerate(scene))
    border = settings.border or str(model.border)
    window = sliding.frame_indices(index, len(held), int(model.window or 1), border)
    segment = Segment(0, 1, {i: held[i] for i in sorted(set(window))}, [window], opens_scene=True)
    with Runner(model, params, settings) as runner:
        ((_, block),) = runner.blocks([segment])
        return np.asarray(block)[0].copy()


def restored_blocks(
    model: Network,
    params: Params,
    scenes: Iterable[Iterable[np.ndarray]],
    settings: RestoreSettings,
    *,
    devices: Sequence[Device] | None = None,
    batch: int = 1,
    progress: Callable[[float], None] | None = None,
    diagnostics: dict[str, list] | None = None,
) -> Iterator[Array]:
    """Yields restored frames in blocks, float32 [t, scale * h, scale * w, 3] on a device.

    scenes: the frames of each scene, which are restored apart. Other arguments as `Runner`'s.
    """
    settings = settings.checked(model)
    options = {"devices": devices, "batch": batch}
    options |= {"progress": progress, "diagnostics": diagnostics}
    with Runner(model, params, settings, **options) as runner:
        checked = checked_scenes(scenes)
        found = runner.blocks(segments(checked, model, settings))
        yield from join_time((s.start, s.stop, block) for s, block in found)


def checked_scenes(scenes: Iterable[Iterable[np.ndarray]]) -> Iterator[Iterator[np.ndarray]]:
    """Passes frames on that are [h, w, 3], of one size and type, finite, and on the right scale.

    Raises UserError for the first that is not, with its number.
    """
    first: np.ndarray | None = None
    index = -1

    def checked(scene: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal first, index
        for frame in scene:
            index += 1
            first = frame if first is None else first
            _check_frame(frame, index, first)
            yield frame

    return map(checked, scenes)


def _check_frame(frame: np.ndarray, index: int, first: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
        raise UserError(f"frame {index} has shape {frame.shape}; give RGB frames [h, w, 3].")
    if (frame.shape, frame.dtype) != (first.shape, first.dtype):
        raise UserError(
            f"frame {index} is {frame.shape} {frame.dtype}, frame 0 is {first.shape} "
            f"{first.dtype}; all frames of a video must be alike."
        )
    if not np.issubdtype(frame.dtype, np.floating):
        if frame.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"frame {index} is {frame.dtype}; give uint8, uint16 or float in [0, 1]."
            )
        return
    bad = np.count_nonzero(~np.isfinite(frame))
    if bad:
        raise UserError(
            f"frame {index} has {bad} values that are NaN or infinite; repair or drop it."
        )
    if (largest := float(np.abs(frame).max())) > LARGEST_FLOAT:
        raise UserError(
            f"frame {index} holds {largest:g}, but float frames are in [0, 1]; divide by 255."
        )
