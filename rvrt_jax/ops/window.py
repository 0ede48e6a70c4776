"""Three-dimensional attention windows: partition, shift mask, relative positions.

Windows and sizes are (t, y, x); the tokens of a window are ordered the same way. Source: RVRT
section 3 (Swin layers over clips), after Liu et al., "Video Swin Transformer", section 3.
"""

import jax.numpy as jnp
from einops import rearrange
from jax import Array

Size3 = tuple[int, int, int]
Sizes = tuple[int, ...]  # three of them: what slices of a shape are to a type checker

MASKED = -100.0  # what the published networks add between tokens of different regions


def fit_window(size: Sizes, window: Sizes, *, shifted: bool) -> tuple[Sizes, Sizes]:
    """Returns the window and shift for features of `size`.

    In a dimension no larger than the window, the window shrinks to it and the shift is 0.
    """
    fitted = tuple(min(s, w) for s, w in zip(size, window, strict=True))
    shift = tuple(w // 2 if shifted and s > w else 0 for s, w in zip(size, window, strict=True))
    return fitted, shift


def partition(x: Array, window: Sizes) -> Array:
    """Cuts [b, t, h, w, c], each size a multiple of the window, into [b, windows, tokens, c]."""
    i, j, k = window
    return rearrange(x, "b (t i) (h j) (w k) c -> b (t h w) (i j k) c", i=i, j=j, k=k)


def merge(windows: Array, window: Sizes, size: Sizes) -> Array:
    """Inverts `partition`: [b, windows, tokens, c] -> [b, *size, c]."""
    i, j, k = window
    t, h, w = (s // n for s, n in zip(size, window, strict=True))
    pattern = "b (t h w) (i j k) c -> b (t i) (h j) (w k) c"
    return rearrange(windows, pattern, t=t, h=h, w=w, i=i, j=j, k=k)


def shift_sides(size: Sizes, window: Sizes, shift: Sizes) -> Array:
    """Returns which side of the seam rolled tokens lie on, bool [windows, tokens, axes].

    Along a shifted axis, what the roll brought from the start to the end, [s-shift, s), and what
    lay before it come from different places of the picture: in one window they must not see each
    other. Axes without a shift have no place in the result.
    """
    sides = []
    for axis, (s, move) in enumerate(zip(size, shift, strict=True)):
        if move:
            came_round = jnp.arange(s) >= s - move
            came_round = came_round.reshape([-1 if a == axis else 1 for a in range(3)])
            sides.append(jnp.broadcast_to(came_round, size))
    return partition(jnp.stack(sides, axis=-1)[None], window)[0]


def relative_position_index(window: Size3) -> Array:
    """Returns the row of the bias table for each (query, key) of a window, int32 [tokens, tokens].

    The row counts query minus key position + (window - 1), in (t, y, x), row-major, in a table of
    (2t-1)(2y-1)(2x-1) rows. Computed in the program: as a constant it would swell the text.
    """
    i, j, k = window
    token = jnp.arange(i * j * k)
    index = 0
    for position, n in ((token // (j * k), i), (token // k % j, j), (token % k, k)):
        index = index * (2 * n - 1) + position[:, None] - position[None, :] + n - 1
    return jnp.asarray(index)
