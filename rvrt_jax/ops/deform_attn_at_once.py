"""Guided deformable attention with all samples in one piece, for GPUs.

There a fetch is free to be part of what reads it: each sum below becomes one kernel that samples
for itself, and nothing of a sample is written to memory but its logit (and, going backward, what
its position's gradient is). On CPUs and TPUs a fetch is an operation of its own, whose result would
be written in full; `deform_attn` goes over the samples one at a time there.

Layout, as `deform_attn` prepares it: q [i, g/2, p, m, u], scaled; m units of u channels that belong
to one group and one head. rows [n, g, (h+2)(w+2), r], zero bordered; the first half of the groups
are keys. places [s, k, i, g, p, 2], (y, x) in pixels. All sums are float32.
"""

from typing import NamedTuple

import jax.numpy as jnp
from einops import rearrange, repeat
from jax import Array

from rvrt_jax.ops.sample import corners


def per_head(x: Array, heads: int) -> Array:
    """Sums [..., g, p, m] over the units of each head and hands every unit its head's sum."""
    groups, _, m = x.shape[-3:]
    if groups * m == heads:
        return x
    x = rearrange(x, "... g p m -> ... p (g m)")
    total = rearrange(x, "... p (a n) -> ... p a n", a=heads).sum(-1)
    total = repeat(total, "... p a -> ... p (a n)", n=groups * m // heads)
    return rearrange(total, "... p (g m) -> ... g p m", g=groups)


class _Samples(NamedTuple):
    """Where samples lie in the table of all rows, [n g (h+2)(w+2), r]: each field [s, k, i, g, p].

    index: of the upper left corner. inside: whether the sample has a derivative. fy, fx: fractions.
    """

    index: Array
    inside: Array
    fy: Array
    fx: Array


def forward(
    q: Array, rows: Array, places: Array, *, heads: int, height: int, width: int
) -> tuple[Array, Array]:
    """Returns float32 values like q, and the logarithm of each softmax's sum, [i, g/2, p, m]."""
    at, table = _locate(rows, places, height, width), rows.reshape(-1, rows.shape[-1])
    keys, values = _halves(at)
    logits = per_head(_dot(q, _fetch(table, keys, width)), heads)
    peak = logits.max((0, 1))
    weights = jnp.exp(logits - peak[None, None])
    total = weights.sum((0, 1))
    sampled = _units(_fetch(table, values, width), q)
    mean = (weights[..., None] * sampled).sum((0, 1)) / total[..., None]
    return mean, peak + jnp.log(total)


def backward(
    q: Array,
    rows: Array,
    places: Array,
    mean_d_weight: Array,
    log_total: Array,
    d_out: Array,
    *,
    heads: int,
    height: int,
    width: int,
) -> tuple[Array, Array, Array]:
    """Returns the float32 gradients of q, rows and places.

    mean_d_weight: per head, the sum of d_out times the values, like log_total.
    """
    at, table = _locate(rows, places, height, width), rows.reshape(-1, rows.shape[-1])
    keys, values = _halves(at)
    weights = jnp.exp(per_head(_dot(q, _fetch(table, keys, width)), heads) - log_total[None, None])
    d_weights = per_head(_dot(d_out, _fetch(table, values, width)), heads)
    d_logits = weights * (d_weights - mean_d_weight[None, None])
    d_q = (d_logits[..., None] * _units(_fetch(table, keys, width), q)).sum((0, 1))
    q32 = q.astype(jnp.float32)[None, None]
    d_keys = rearrange(d_logits[..., None] * q32, "s k i g p m u -> s k i g p (m u)")
    d_values = rearrange(weights[..., None] * d_out[None, None], "s k i g p m u -> s k i g p (m u)")
    d_table = jnp.zeros(table.shape, jnp.float32)
    d_places = []
    for part, d_sampled in ((keys, d_keys), (values, d_values)):
        d_places.append(_slopes(table, part, d_sampled, width))
        d_table = _scatter(d_table, part, d_sampled, width)
    return d_q, d_table.reshape(rows.shape), jnp.concatenate(d_places, axis=3)


def _locate(rows: Array, places: Array, height: int, width: int) -> _Samples:
    """Returns the samples' places in the table of all rows."""
    n, groups, size, _ = rows.shape
    slots = places.shape[0]
    frame = (jnp.arange(slots)[:, None] + jnp.arange(n)[None]) % n  # of slot s and target i
    first = frame[:, :, None] * groups + jnp.arange(groups)[None, None]
    index, inside, fy, fx = corners(places, height, width)
    return _Samples(index + size * first[:, None, :, :, None], inside, fy, fx)


def _halves(at: _Samples) -> tuple[_Samples, _Samples]:
    """Returns the samples of keys and those of values."""
    keys, values = zip(*(jnp.split(field, 2, axis=3) for field in at), strict=True)
    return _Samples(*keys), _Samples(*values)


def _corners(table: Array, at: _Samples, width: int) -> list[Array]:
    """Returns the four neighbours of each sample, float32 [s, k, i, g, p, r]."""
    moves = 0, 1, width + 2, width + 3
    get = [table.at[at.index + move].get(mode="promise_in_bounds") for move in moves]
    return [x.astype(jnp.float32) for x in get]


def _shares(at: _Samples) -> list[Array]:
    """Returns the weights of the four neighbours, [s, k, i, g, p, 1]."""
    fy, fx = at.fy[..., None], at.fx[..., None]
    return [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]


def _fetch(table: Array, at: _Samples, width: int) -> Array:
    """Samples the table: float32 [s, k, i, g, p, r]."""
    parts = zip(_shares(at), _corners(table, at, width), strict=True)
    return sum((share * corner for share, corner in parts), start=jnp.zeros((), jnp.float32))


def _units(sampled: Array, q: Array) -> Array:
    """Splits channels as q's are: [..., r] -> [..., m, u]."""
    return sampled.reshape(*sampled.shape[:-1], *q.shape[-2:])


def _dot(x: Array, sampled: Array) -> Array:
    """Multiplies [i, g, p, m, u] by samples [s, k, i, g, p, r]: sums over u, [s, k, i, g, p, m]."""
    return (x.astype(jnp.float32)[None, None] * _units(sampled, x)).sum(-1)


def _slopes(table: Array, at: _Samples, d_sampled: Array, width: int) -> Array:
    """Returns the gradient of the samples' places, [s, k, i, g, p, 2], (y, x)."""
    top_left, top_right, low_left, low_right = _corners(table, at, width)
    fy, fx = at.fy[..., None], at.fx[..., None]
    slope_y = (1 - fx) * (low_left - top_left) + fx * (low_right - top_right)
    slope_x = (1 - fy) * (top_right - top_left) + fy * (low_right - low_left)
    sums = [(d_sampled * slope).sum(-1) for slope in (slope_y, slope_x)]
    return jnp.stack([jnp.where(at.inside, x, 0.0) for x in sums], axis=-1)


def _scatter(d_table: Array, at: _Samples, d_sampled: Array, width: int) -> Array:
    """Adds the samples' gradients to their neighbours' rows."""
    for move, share in zip((0, 1, width + 2, width + 3), _shares(at), strict=True):
        d_table = d_table.at[at.index + move].add(share * d_sampled, mode="promise_in_bounds")
    return d_table
