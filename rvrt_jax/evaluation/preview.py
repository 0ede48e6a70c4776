"""A few seconds of a clip, restored by several networks side by side: a video and a picture."""

import dataclasses
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import picture as pictures
from rvrt_jax.evaluation.clips import ReadOptions
from rvrt_jax.evaluation.score import to_8_bits
from rvrt_jax.files import check_outputs
from rvrt_jax.media.frames import is_video, open_writer
from rvrt_jax.restoration.clip import OutputOptions
from rvrt_jax.restoration.plan import plan_tiles
from rvrt_jax.restoration.restore import restore_stream
from rvrt_jax.restoration.settings import RestoreSettings
from rvrt_jax.weights import load as loading

RATE = Fraction(25)  # of images whose rate is not given

Panel = tuple[str, list[np.ndarray]]  # a label, and uint8 frames [h, w, 3]


def run(
    sources: Sequence[str],
    output: str,
    models: Sequence[str],
    settings: RestoreSettings,
    reading: ReadOptions,
    options: OutputOptions,
    *,
    seconds: float,
) -> None:
    """Restores the first `seconds` from where `reading` begins with every model.

    output: a video file; the picture, of the frame in the middle, lies beside it as a PNG. Raises
    UserError for what cannot be read, restored or written.
    """
    if len(sources) != 1 or not is_video(output):
        raise UserError(
            f"a preview is of one clip, and a video: give one input and an output such as "
            f"preview.mp4, not {', '.join(sources)} and {output}."
        )
    if not seconds > 0:
        raise UserError(f"the preview is to take {seconds} s; give more than 0.")
    picture = str(Path(output).with_suffix(".png"))
    with dataclasses.replace(reading, frames=None).open(sources[0]) as source:
        check_outputs([output, picture], inputs=source.files, overwrite=options.overwrite)
        rate = source.fps or RATE
        count = min(source.length, max(1, round(seconds * rate)))
        if reading.frames is not None:
            count = min(count, reading.frames)
        frames = [frame for _, frame in zip(range(count), source, strict=False)]
    panels: list[Panel] = [("input", [to_8_bits(frame) for frame in frames])]
    for name in models:
        panels.append((Path(name).name, _restored(name, frames, settings)))
    panels = _of_one_size(panels)
    middle = len(frames) // 2
    detail = pictures.most_detailed(panels[-1][1][middle])
    rows = [
        _even(pictures.picture([(label, versions[k]) for label, versions in panels], detail))
        for k in range(len(frames))
    ]
    height, width, _ = rows[0].shape
    encoder = options.encoder
    with open_writer(
        output, fps=rate, height=height, width=width, overwrite=options.overwrite, **encoder
    ) as writer:
        for row in rows:
            writer.write(row)
    pictures.write(picture, rows[middle])
    print(f"{len(rows)} frames side by side: {output}, and number {middle}: {picture}")


def _restored(name: str, frames: list[np.ndarray], settings: RestoreSettings) -> list[np.ndarray]:
    """Restores frames with the weights of a name; returns them in 8 bits."""
    model, params = loading.load(name)
    fitted = settings.without_unused(model).checked(model)
    h, w, _ = frames[0].shape
    plan = plan_tiles(model, params, (len(frames), h, w), fitted)
    print(f"{name}: {plan}", file=sys.stderr)
    fitted = dataclasses.replace(fitted, tile=plan.tile, overlap=plan.overlap)
    return [to_8_bits(frame) for frame in restore_stream(model, params, frames, fitted)]


def _of_one_size(panels: list[Panel]) -> list[Panel]:
    """Enlarges all to the largest by a bicubic filter, and says so in their labels."""
    h, w, _ = max((versions[0].shape for _, versions in panels), key=lambda shape: shape[0])

    def fit(label: str, versions: list[np.ndarray]) -> Panel:
        times = h / versions[0].shape[0]
        if times == 1:
            return label, versions
        enlarged = [cv2.resize(one, (w, h), interpolation=cv2.INTER_CUBIC) for one in versions]
        return f"{label}, bicubic x{times:g}", enlarged

    return [fit(*panel) for panel in panels]


def _even(image: np.ndarray) -> np.ndarray:
    """Adds a line and a column where there is an odd number, which many players want."""
    h, w, _ = image.shape
    return np.pad(image, ((0, h % 2), (0, w % 2), (0, 0)), constant_values=pictures.BACKGROUND[0])
