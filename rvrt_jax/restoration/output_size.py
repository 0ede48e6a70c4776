"""The size of the output: what the network gives, or reduced from it with a filter for that."""

import functools
from collections.abc import Callable
from fractions import Fraction

import jax
from jax import Array

from rvrt_jax.errors import UserError

Size2 = tuple[int, int]  # (height, width)


def choose(
    size: Size2,
    network_scale: int,
    *,
    scale: str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Size2 | None:
    """Returns the size of the output of a clip of (height, width), None for the network's own.

    scale: output size over input size, such as "2" or "1.5". height, width: of the output; the
    other one follows, and of both the picture fits into them. Its shape is kept, but for rounding:
    sizes become even, as most encoders want them, unless the network's own are not.
    Raises UserError for more than one of scale and sizes, and for more than the network gives.
    """
    if scale is None and height is None and width is None:
        return None
    if scale is not None and (height is not None or width is not None):
        raise UserError("--scale goes without --height and --width; give one or the other.")
    full = size[0] * network_scale, size[1] * network_scale
    wanted = (height, full[0]), (width, full[1])
    ratios = [Fraction(n, own) for n, own in wanted if n is not None]
    if scale is not None:
        ratios = [_positive(scale) / network_scale]
    ratio = min(ratios)
    if not 0 < ratio <= 1:
        raise UserError(
            f"the output would be {float(full[1] * ratio):g}x{float(full[0] * ratio):g}, but the "
            f"network makes {full[1]}x{full[0]} of {size[1]}x{size[0]}, which is only reduced. Ask "
            f"for at most {network_scale} times the size, or take weights that enlarge more."
        )
    if ratio == 1:
        return None
    return _rounded(full[0], ratio), _rounded(full[1], ratio)


def reduce_to(size: Size2) -> Callable[[Array], Array]:
    """Returns a function that reduces frames [t, h, w, 3] to (height, width) on their device.

    With a Lanczos filter as wide as the reduction asks for, so that nothing aliases.
    """
    return functools.partial(_reduced, size=size)


@functools.partial(jax.jit, static_argnames="size")
def _reduced(frames: Array, *, size: Size2) -> Array:
    t, _, _, c = frames.shape
    return jax.image.resize(frames, (t, *size, c), "lanczos3", antialias=True)


def _positive(scale: str) -> Fraction:
    try:
        ratio = Fraction(scale)
    except (ValueError, ZeroDivisionError):
        ratio = Fraction(0)
    if ratio <= 0:
        raise UserError(f"scale is {scale}; give a number above 0, such as 2 or 1.5.")
    return ratio


def _rounded(length: int, ratio: Fraction) -> int:
    step = 2 if length % 2 == 0 else 1
    return max(step, round(length * ratio / step) * step)
