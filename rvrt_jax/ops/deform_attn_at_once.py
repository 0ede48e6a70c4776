"""Guided deformable attention with all samples in one piece, for GPUs.

There a fetch is free to be part of what reads it: each sum below becomes one kernel that samples
for itself, and nothing of a sample is written to memory but its logit (and, going backward, what
its position's gradient is). On CPUs and TPUs a fetch is an operation of its own, whose result would
be written in full; `deform_attn` goes over the samples one at a time there.

Layout, as `deform_attn` prepares it: q [i, g/2, p, m, u], scaled; m units of u channels that belong
to one group and one head. rows [n, g, (h+2)(w+2), r], zero bordered; the first half of the groups
are keys. places [s, k, i, g, p, 2], (y, x) in pixels. All sums are float32.
"""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax import Array

from rvrt_jax.ops import neighbours
from rvrt_jax.ops.neighbours import Samples, fetch, halves, shares, slopes
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


def forward(
    q: Array, rows: Array, places: Array, *, heads: int, height: int, width: int
) -> tuple[Array, Array]:
    """Returns float32 values like q, and the logarithm of each softmax's sum, [i, g/2, p, m]."""
    at, table = _locate(rows, places, height, width), rows.reshape(-1, rows.shape[-1])
    keys, values = halves(at, axis=3)
    logits = per_head(_dot(q, fetch(table, keys)), heads)
    peak = logits.max((0, 1))
    weights = jnp.exp(logits - peak[None, None])
    total = weights.sum((0, 1))
    sampled = _units(fetch(table, values), q)
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
    keys, values = halves(at, axis=3)
    # The products with the four neighbours are small, and give both logits and slopes: so nothing
    # reads a whole sample twice, which XLA would write to memory for that.
    key_products = _products(q, table, keys)
    value_products = _products(d_out, table, values)
    weights = jnp.exp(per_head(_mix(keys, key_products), heads) - log_total[None, None])
    d_weights = per_head(_mix(values, value_products), heads)
    d_logits = weights * (d_weights - mean_d_weight[None, None])
    # Behind a barrier, or XLA would share the fetch with `forward`, and write it to memory.
    again = keys._replace(index=jax.lax.optimization_barrier(keys.index))
    d_q = (d_logits[..., None] * _units(fetch(table, again), q)).sum((0, 1))
    d_table = neighbours.scatter(table.shape, keys, _updates(keys, d_logits, q))
    d_table += neighbours.scatter(table.shape, values, _updates(values, weights, d_out))
    d_places = [
        slopes(keys, (d_logits[None] * key_products).sum(-1)),
        slopes(values, (weights[None] * value_products).sum(-1)),
    ]
    return d_q, d_table.reshape(rows.shape), jnp.concatenate(d_places, axis=3)


def _locate(rows: Array, places: Array, height: int, width: int) -> Samples:
    """Returns the samples' places in the table of all rows."""
    index, inside, fy, fx = corners(places, height, width)
    index += first_rows(rows, len(places))[:, None, ..., None]
    return Samples(index, inside, fy, fx, right=1, down=width + 2)


def first_rows(rows: Array, slots: int) -> Array:
    """Returns the row of the table of all rows where what a slot samples begins, [s, i, g]."""
    n, groups, size, _ = rows.shape
    frame = (jnp.arange(slots)[:, None] + jnp.arange(n)[None]) % n  # of slot s and target i
    return size * (frame[:, :, None] * groups + jnp.arange(groups)[None, None])


def _units(sampled: Array, q: Array) -> Array:
    """Splits channels as q's are: [..., r] -> [..., m, u]."""
    return sampled.reshape(*sampled.shape[:-1], *q.shape[-2:])


def _dot(x: Array, sampled: Array) -> Array:
    """Multiplies [i, g, p, m, u] by samples [s, k, i, g, p, r]: sums over u, [s, k, i, g, p, m]."""
    return (x.astype(jnp.float32)[None, None] * _units(sampled, x)).sum(-1)


def _products(x: Array, table: Array, at: Samples) -> Array:
    """Multiplies [i, g, p, m, u] by each neighbour of its samples: [4, s, k, i, g, p, m]."""
    found = _units(neighbours.rows(table, at), x)
    return (x.astype(jnp.float32)[None, None, None] * found).sum(-1)


def _mix(at: Samples, products: Array) -> Array:
    """Interpolates between [4, s, k, i, g, p, m] of the neighbours: [s, k, i, g, p, m]."""
    return (shares(at)[..., None] * products).sum(0)


def _updates(at: Samples, weights: Array, x: Array) -> Array:
    """Returns `weights` [s, k, i, g, p, m] times x [i, g, p, m, u], for each neighbour's row."""
    weights = shares(at)[..., None] * weights[None]
    updates = weights[..., None] * x.astype(jnp.float32)[None, None, None]
    return updates.reshape(*updates.shape[:-2], -1)
