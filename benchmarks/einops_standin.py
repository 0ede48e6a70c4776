"""`rearrange` and `repeat` as einops has them, for machines where it is not installed.

As much of them as the networks use: named axes, groups of them, ones, and `...` for leading axes.
"""

import math
import sys
import types
from typing import Any

import jax.numpy as jnp


def install() -> bool:
    """Lets `import einops` find this module where einops is missing; returns whether it was."""
    try:
        import einops  # noqa: F401
    except ModuleNotFoundError:
        module = types.ModuleType("einops")
        vars(module).update(rearrange=rearrange, repeat=repeat)
        sys.modules["einops"] = module
        return True
    return False


def rearrange(x: Any, pattern: str, **sizes: int) -> Any:
    """Takes the axes of `x` apart, orders them anew and joins them, as einops does."""
    return repeat(x, pattern, **sizes)


def repeat(x: Any, pattern: str, **sizes: int) -> Any:
    """Does what `rearrange` does, and repeats along the axes that only the right side names."""
    left, right = (_parse(side) for side in pattern.split("->"))
    lead = x.ndim - sum(group != ["..."] for group in left)
    left, right = (_without_dots(groups, lead) for groups in (left, right))
    for group, size in zip(left, x.shape, strict=True):
        unknown = [name for name in group if name not in sizes]
        if len(unknown) > 1:
            raise ValueError(f"{pattern}: give the size of all but one of {unknown}")
        known = math.prod(sizes[name] for name in group if name in sizes)
        sizes |= {name: size // known for name in unknown}
    names = [name for group in left for name in group]
    wanted = [name for group in right for name in group]
    x = x.reshape([sizes[name] for name in names])
    x = x.transpose([names.index(name) for name in wanted if name in names])
    new = [name for name in wanted if name not in names]
    if new:
        shape = [1 if name in new else sizes[name] for name in wanted]
        x = jnp.broadcast_to(x.reshape(shape), [sizes[name] for name in wanted])
    return x.reshape([math.prod(sizes[name] for name in group) for group in right])


def _parse(side: str) -> list[list[str]]:
    """Returns the names of each axis: "b (h i) 1" is [["b"], ["h", "i"], []]."""
    groups: list[list[str]] = []
    inside = False
    for token in side.replace("(", " ( ").replace(")", " ) ").split():
        if token in "()":
            inside = token == "("
            groups += [[]] if inside else []
        elif inside:
            groups[-1].append(token)
        else:
            groups.append([] if token == "1" else [token])
    return groups


def _without_dots(groups: list[list[str]], lead: int) -> list[list[str]]:
    """Puts names for `lead` axes in the place of "..."."""
    dots = [[f"...{i}"] for i in range(lead)]
    return [each for group in groups for each in (dots if group == ["..."] else [group])]
