"""A scene of waves, which can be moved by any share of a pixel and blurred exactly."""

import numpy as np

MOMENTS = 33


def shaken_waves(
    *, open_share: float, size: int = 32, frames: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (blurred, sharp), float32 [t, size, size, 3], and the velocity of the scene, [t, 2].

    It sways by up to 4 pixels a frame along each axis. open_share: of the time between frames.
    """
    rng = np.random.default_rng(seed)
    waves = rng.uniform(-0.6, 0.6, (40, 2))  # radians a pixel: of 7 pixels and more
    phases = rng.uniform(0, 2 * np.pi, (40, 3))
    turn, start = rng.uniform(0.7, 1.2, 2), rng.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:size, :size]
    grid = np.stack([x, y], axis=-1)

    def picture(time: float) -> np.ndarray:
        place = 4 / turn * np.sin(turn * time + start)
        angles = ((grid - place) @ waves.T)[..., None] + phases
        return 0.5 + 0.05 * np.cos(angles).sum(axis=2)

    times = np.arange(frames)
    moments = open_share * ((np.arange(MOMENTS) + 0.5) / MOMENTS - 0.5)
    blurred = [np.mean([picture(t + m) for m in moments], axis=0) for t in times]
    velocity = 4 * np.cos(np.outer(times, turn) + start)
    sharp = np.stack([picture(t) for t in times])
    return np.float32(blurred), np.float32(sharp), np.float32(velocity)
