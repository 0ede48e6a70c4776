"""Estimates of the memory that a network takes, for planning; the compiler is asked afterwards.

Floats per pixel at working resolution (at scale 1 features are of a quarter size each way), fitted
to the compiler's figures for float32 networks on a CPU, within 15 % from 8 frames on.
"""

from rvrt_jax.models.contract import Size

# Whatever the width (flow, tail); for each feature channel (one clip's attention); and for each
# channel and frame (features kept for later branches).
FLOATS_FIXED, FLOATS_PER_CHANNEL, FLOATS_PER_FRAME = 2600, 105, 11
# The same for windows: for each feature channel (alignment of one frame) and frame of the window
# (its features, as they are and aligned), and whatever the width (the tail).
FLOATS_SLIDING, FLOATS_PER_WINDOW, FLOATS_TAIL = 20, 4, 2600


def clip_memory(call: Size, *, scale: int, channels: int, in_channels: int = 3) -> int:
    """Returns the bytes that a recurrent network takes for (t, h, w) input pixels."""
    t, h, w = call
    pixels = h * w if scale > 1 else h * w / 16
    features = FLOATS_FIXED + channels * (FLOATS_PER_CHANNEL + FLOATS_PER_FRAME * t)
    frames = t * h * w * (in_channels + 3 * scale**2)
    return int(4 * (pixels * features + frames))


def window_memory(call: Size, *, scale: int, channels: int, window: int) -> int:
    """Returns the bytes that a network takes for windows at once, of (h, w) input pixels."""
    count, h, w = call
    pixels = h * w if scale > 1 else h * w / 16
    features = channels * (FLOATS_SLIDING + FLOATS_PER_WINDOW * window)
    return int(4 * count * pixels * (features + FLOATS_TAIL))
