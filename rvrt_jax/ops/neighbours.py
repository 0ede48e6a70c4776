"""Bilinear sampling from a table, whose fetches may become part of what reads them.

A table is [rows, r]; samples have any shape, written `...`. All sums are float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Samples(NamedTuple):
    """Where samples lie in a table: index of the upper left row, inside, fractions fy and fx.

    Each [...], as `sample.corners` returns them. The rows beside and below lie `right` and `down`
    entries further.
    """

    index: Array
    inside: Array
    fy: Array
    fx: Array
    right: int
    down: int


def halves(at: Samples, axis: int) -> tuple[Samples, Samples]:
    """Cuts the samples in two along an axis."""
    fields = [jnp.split(field, 2, axis=axis) for field in (at.index, at.inside, at.fy, at.fx)]
    first, second = (
        Samples(*(field[half] for field in fields), right=at.right, down=at.down) for half in (0, 1)
    )
    return first, second


def shares(at: Samples) -> Array:
    """Returns the weights of the four neighbours, [4, ...]."""
    fy, fx = at.fy, at.fx
    return jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])


def places(at: Samples) -> Array:
    """Returns the rows of the four neighbours in the table, [4, ...]."""
    moves = jnp.array([0, at.right, at.down, at.down + at.right])
    return at.index[None] + moves.reshape(4, *[1] * at.index.ndim)


def take(table: Array, index: Array) -> Array:
    """Returns rows of the table, [..., r] in its type."""
    return table.at[index].get(mode="promise_in_bounds")


def rows(table: Array, at: Samples) -> Array:
    """Returns the four neighbours, float32 [4, ..., r]."""
    return take(table, places(at)).astype(jnp.float32)


def fetch(table: Array, at: Samples) -> Array:
    """Samples the table: float32 [..., r]."""

    def get(move: int) -> Array:
        return take(table, at.index + move).astype(jnp.float32)

    fy, fx = at.fy[..., None], at.fx[..., None]
    top = (1 - fx) * get(0) + fx * get(at.right)
    low = (1 - fx) * get(at.down) + fx * get(at.down + at.right)
    return (1 - fy) * top + fy * low


def slopes(at: Samples, d_shares: Array | Sequence[Array]) -> Array:
    """Turns the four weights' gradients, [...] each, into the positions', [..., 2], (y, x)."""
    top_left, top_right, low_left, low_right = d_shares
    d_y = (1 - at.fx) * (low_left - top_left) + at.fx * (low_right - top_right)
    d_x = (1 - at.fy) * (top_right - top_left) + at.fy * (low_right - low_left)
    return jnp.where(at.inside[..., None], jnp.stack([d_y, d_x], axis=-1), 0.0)


def scatter(shape: tuple[int, ...], at: Samples, updates: Array) -> Array:
    """Adds updates [4, ..., r] to the neighbours' rows of float32 zeros of `shape`, [rows, r]."""
    return jnp.zeros(shape, jnp.float32).at[places(at)].add(updates, mode="promise_in_bounds")
