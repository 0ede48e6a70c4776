"""How much memory one call of a network takes, estimated from its size.

The numbers were fitted to the compiler's figures on a CPU, in float32: of RVRT of widths 36, 144
and 192 within 15 % from 8 frames on. They need not be exact: `restoration.restore.plan_tiles` asks
the compiler before it settles on a tile.
"""

import jax
import jax.numpy as jnp

from rvrt_jax.models.contract import Network, Size, in_channels

FLOAT32 = 4  # bytes

# Numbers per pixel at working resolution. FIXED: whatever the width and always float32 (flow and
# tail). PER_CHANNEL: for each feature channel (one clip's attention). PER_FRAME: for each feature
# channel and frame (features kept for later branches).
FIXED, PER_CHANNEL, PER_FRAME = 2600, 105, 11
# The same for windows. PER_CHANNEL: alignment of one frame. PER_FRAME: the features of a frame of
# the window, as they are and aligned; accelerators align all frames at once. FIXED: the tail.
WINDOW_FIXED, WINDOW_PER_CHANNEL = 2600, 20
WINDOW_PER_FRAME, WINDOW_PER_FRAME_AT_ONCE = 4, 16


def of_clip(model: Network, call: Size, channels: int, *, stride: int = 4) -> int:
    """Estimates the bytes of one call on a clip of (frames, height, width) input pixels.

    channels: the widest features. stride: how much smaller they are than frames, at scale 1.
    """
    frames, height, width = call
    per_pixel = channels * (PER_CHANNEL + PER_FRAME * frames)
    bytes_per_pixel = FLOAT32 * FIXED + jnp.dtype(model.dtype).itemsize * per_pixel
    in_and_out = frames * height * width * (in_channels(model) + 3 * model.scale**2)
    return int(_working_pixels(model, call, stride) * bytes_per_pixel + FLOAT32 * in_and_out)


def of_windows(model: Network, call: Size, channels: int, frames: int) -> int:
    """Estimates the bytes of one call on (windows, height, width), windows of so many frames.

    channels: the widest features.
    """
    one_by_one = jax.default_backend() == "cpu"
    per_frame = WINDOW_PER_FRAME if one_by_one else WINDOW_PER_FRAME_AT_ONCE
    per_pixel = channels * (WINDOW_PER_CHANNEL + per_frame * frames)
    bytes_per_pixel = FLOAT32 * WINDOW_FIXED + jnp.dtype(model.dtype).itemsize * per_pixel
    return int(call[0] * _working_pixels(model, call, 4) * bytes_per_pixel)


def _working_pixels(model: Network, call: Size, stride: int) -> float:
    """Returns the pixels of the features; at scale 1 they are smaller than the frames."""
    _, height, width = call
    return height * width if model.scale > 1 else height * width / stride**2
