"""Guided deformable attention: one query per pixel against keys and values sampled at N x K places.

Source: RVRT, section 3.3 (guided deformable attention). Layout of both implementations:
q [n, h, w, c]: queries of the n target frames. kv [n, h, w, 2c]: keys, then values, of the n
support frames. offsets [n, h, w, s, g, k, 2]: for each target frame and pixel, the slots s = n,
groups g and taps k (row-major in an odd window), the displacement (y, x) in pixels added to pixel
+ tap. Slot s of target frame i samples support frame (s + i) mod n. The 2c channels of kv are cut
into g groups that move together, so keys and values are sampled at different places.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax import Array

from rvrt_jax.ops import deform_attn_at_once, neighbours, platforms
from rvrt_jax.ops.deform_attn_at_once import per_head
from rvrt_jax.ops.neighbours import Samples, halves
from rvrt_jax.ops.precision import precision_of
from rvrt_jax.ops.sample import (
    bilinear_sample_plain,
    corners,
    pad_corners,
    pixel_grid,
    sample_rows,
    sum_last,
)

Window2 = tuple[int, int]


def tap_positions(window: Window2) -> Array:
    """Returns the taps of an odd window, float32 [taps, 2], (y, x) from its centre, row-major."""
    centre = jnp.array([[(size - 1) / 2 for size in window]], jnp.float32)
    return pixel_grid(*window).reshape(-1, 2) - centre


def deform_attn_plain(q: Array, kv: Array, offsets: Array, *, heads: int, window: Window2) -> Array:
    """Samples all keys and values at once, then attends: the readable definition.

    Shapes as in the module's docstring. Returns [n, h, w, c] in q.dtype. Needs memory for
    n * n * taps * 2c floats per pixel.
    """
    n, h, w, _ = q.shape
    grid = rearrange(pixel_grid(h, w), "h w y -> 1 h w 1 1 1 y")
    taps = rearrange(tap_positions(window), "k y -> 1 1 1 1 1 k y")
    coords = rearrange(grid + taps + offsets, "i h w s g k y -> i s g h w k y")
    frames = rearrange(kv, "n h w (g r) -> n g h w r", g=offsets.shape[4])
    support = (jnp.arange(n)[None, :] + jnp.arange(n)[:, None]) % n
    sample = jax.vmap(jax.vmap(jax.vmap(bilinear_sample_plain)))
    sampled = sample(frames[support], coords)
    sampled = rearrange(sampled, "i s g h w k r -> i h w (s k) (g r)")
    keys, values = jnp.split(sampled, 2, axis=-1)
    split_heads = functools.partial(rearrange, pattern="... (a d) -> ... a d", a=heads)
    q, keys, values = split_heads(q), split_heads(keys), split_heads(values)
    einsum = functools.partial(jnp.einsum, precision=precision_of(q.dtype))
    logits = einsum("ihwad,ihwmad->ihwam", q, keys) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(q.dtype)
    attended = einsum("ihwam,ihwmad->ihwad", weights, values)
    return rearrange(attended, "i h w a d -> i h w (a d)")


class _Spec(NamedTuple):
    """What the streamed attention needs to know beside its arrays."""

    height: int
    width: int
    window: Window2
    heads: int
    everywhere_at_once: bool  # or on GPUs alone


def deform_attn_streamed(
    q: Array, kv: Array, offsets: Array, *, heads: int, window: Window2
) -> Array:
    """Goes over the samples one at a time with an online softmax: same values, little memory.

    The backward pass goes over them once more and samples again, so nothing is kept per sample.
    On GPUs it computes as `deform_attn_in_one`, which moves fewer bytes there.
    """
    spec = _Spec(q.shape[1], q.shape[2], window, heads, False)
    return _laid_out(q, kv, offsets, spec)


def deform_attn_in_one(
    q: Array, kv: Array, offsets: Array, *, heads: int, window: Window2
) -> Array:
    """Takes all samples at once on every platform (`deform_attn_at_once`): same values."""
    spec = _Spec(q.shape[1], q.shape[2], window, heads, True)
    return _laid_out(q, kv, offsets, spec)


def _laid_out(q: Array, kv: Array, offsets: Array, spec: _Spec) -> Array:
    h, c, heads = spec.height, q.shape[-1], spec.heads
    if offsets.shape[4] % 2:  # keys and values share a group: give each the group's positions
        offsets = repeat(offsets, "i h w s g k y -> i h w s (g two) k y", two=2)
    groups, head = offsets.shape[4], c // heads
    # Frames and groups go before pixels, so that one fetch reads a group's channels in one piece.
    rows = rearrange(kv, "n h w (g r) -> n g h w r", g=groups)
    rows = jax.vmap(jax.vmap(pad_corners))(rows)
    unit = math.gcd(c // (groups // 2), head)  # channels that share both their group and their head
    q = rearrange(q * head**-0.5, "i h w (g m u) -> i g (h w) m u", g=groups // 2, u=unit)
    offsets = rearrange(offsets, "i h w s g k y -> s k i g (h w) y")
    attended = cast(Array, _attend(q, rows, offsets, spec))
    return rearrange(attended, "i g (h w) m u -> i h w (g m u)", h=h)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(q: Array, rows: Array, offsets: Array, spec: _Spec) -> Array:
    """The streamed attention on arrays already laid out.

    q: [i, g/2, p, m, u], scaled; m units of u channels that belong to one group and one head.
    rows: [n, g, (h+2)(w+2), r], zero bordered. offsets: [s, k, i, g, p, 2]. Returns q's shape.
    """
    return _attend_forward(q, rows, offsets, spec)[0]


def _attend_forward(q: Array, rows: Array, offsets: Array, spec: _Spec):
    out, log_total = _by_platform(_forward_at_once, _forward_streamed, spec, q, rows, offsets)
    return out, (q, rows, offsets, out, log_total)


def _attend_backward(spec: _Spec, residuals: tuple[Array, ...], d_out: Array):
    return _by_platform(_backward_at_once, _backward_streamed, spec, *residuals, d_out)


_attend.defvjp(_attend_forward, _attend_backward)


def _by_platform(at_once: Callable, streamed: Callable, spec: _Spec, *arrays: Array):
    """Computes by `at_once` where the program runs on a GPU or `spec` asks for it."""
    at_once, streamed = (functools.partial(f, spec=spec) for f in (at_once, streamed))
    if spec.everywhere_at_once:
        return at_once(*arrays)
    return platforms.choose(*arrays, cuda=at_once, rocm=at_once, default=streamed)


def _forward_at_once(q: Array, rows: Array, offsets: Array, *, spec: _Spec):
    out, log_total = deform_attn_at_once.forward(
        q, rows, _places(offsets, spec), heads=spec.heads, height=spec.height, width=spec.width
    )
    return out.astype(q.dtype), log_total


def _backward_at_once(
    q: Array, rows: Array, offsets: Array, out: Array, log_total: Array, d_out: Array, *, spec
):
    d_out = d_out.astype(jnp.float32)
    mean_d_weight = per_head((d_out * out).sum(-1), spec.heads)
    places = _places(offsets, spec)
    sizes = {"heads": spec.heads, "height": spec.height, "width": spec.width}
    d_q, d_rows, d_offsets = deform_attn_at_once.backward(
        q, rows, places, mean_d_weight, log_total, d_out, **sizes
    )
    return d_q.astype(q.dtype), d_rows.astype(rows.dtype), d_offsets


def _forward_streamed(q: Array, rows: Array, offsets: Array, *, spec: _Spec):
    table = rows.reshape(-1, rows.shape[-1])

    def step(carry, sample: tuple[Array, Array]):
        peak, total, mean = carry
        # Keys are fetched apart from the values, so that each fetch has one reader, with which XLA
        # fuses it: nothing of it is ever written to memory.
        keys, values = (
            _sample(table, at).reshape(q.shape) for at in halves(_locate(*sample, spec), axis=1)
        )
        logits = per_head(sum_last(q * keys), spec.heads)
        new_peak = jnp.maximum(peak, logits)
        decay, weight = jnp.exp(peak - new_peak), jnp.exp(logits - new_peak)
        mean = mean * decay[..., None] + weight[..., None] * values
        return (new_peak, total * decay + weight, mean), None

    peak = jnp.full(q.shape[:-1], -jnp.inf, jnp.float32)
    start = peak, jnp.zeros_like(peak), jnp.zeros(q.shape, jnp.float32)
    (peak, total, mean), _ = jax.lax.scan(step, start, _samples(rows, offsets, spec))
    return (mean / total[..., None]).astype(q.dtype), peak + jnp.log(total)


def _backward_streamed(
    q: Array, rows: Array, offsets: Array, out: Array, log_total: Array, d_out: Array, *, spec
):
    """Samples again and turns each sample's share of `d_out` into gradients.

    The softmax is undone as in Dao et al., "FlashAttention", NeurIPS 2022, appendix B.2. Products
    with the four neighbours are small, and give logits and slopes alike.
    """
    d_out = d_out.astype(jnp.float32)
    mean_d_weight = per_head(sum_last(d_out * out), spec.heads)
    table, groups = rows.reshape(-1, rows.shape[-1]), rows.shape[1]
    partner = jnp.concatenate([q.astype(jnp.float32), d_out], axis=1)  # of keys, of values

    def step(carry, sample: tuple[Array, Array]):
        d_q, d_table = carry
        at = _locate(*sample, spec)
        corner_rows, corner_shares = neighbours.places(at), neighbours.shares(at)
        products = [_unit_products(partner, neighbours.take(table, i)) for i in corner_rows]
        mixed = sum(s[..., None] * x for s, x in zip(corner_shares, products, strict=True))
        of_keys, of_values = jnp.split(mixed, 2, axis=1)
        weight = jnp.exp(per_head(of_keys, spec.heads) - log_total)
        d_logits = weight * (per_head(of_values, spec.heads) - mean_d_weight)
        # What the partner is multiplied by to be the sample's gradient.
        factor = jax.lax.optimization_barrier(jnp.concatenate([d_logits, weight], axis=1))
        d_place = neighbours.slopes(at, [_sum_units(factor * x) for x in products])
        for i, share in zip(corner_rows, corner_shares, strict=True):
            # Without the barrier XLA would compute all of the above again in each turn of its loop
            # over the rows.
            part = jax.lax.optimization_barrier(share[..., None] * factor)
            keys = neighbours.take(table, i[:, : groups // 2]).reshape(q.shape)
            d_q += part[:, : groups // 2, ..., None] * keys
            update = (part[..., None] * partner).reshape(*i.shape, -1)
            d_table = d_table.at[i].add(update, mode="promise_in_bounds")
        return (d_q, d_table), d_place

    start = jnp.zeros(q.shape, jnp.float32), jnp.zeros(table.shape, jnp.float32)
    (d_q, d_table), d_places = jax.lax.scan(step, start, _samples(rows, offsets, spec))
    d_rows = d_table.reshape(rows.shape).astype(rows.dtype)
    return d_q.astype(q.dtype), d_rows, d_places.reshape(offsets.shape)


def _samples(rows: Array, offsets: Array, spec: _Spec) -> tuple[Array, Array]:
    """Returns, for all samples one after another, their positions [s k, i, g, p, 2], and the row of
    the table where the image that they lie in begins, [s k, i, g].
    """
    slots, taps = offsets.shape[:2]
    first = jnp.repeat(deform_attn_at_once.first_rows(rows, slots), taps, axis=0)
    return rearrange(_places(offsets, spec), "s k i g p y -> (s k) i g p y"), first


def _locate(place: Array, first: Array, spec: _Spec) -> Samples:
    """Returns where samples lie in the table of all rows, [i, g, p]."""
    index, inside, fy, fx = corners(place, spec.height, spec.width)
    return Samples(index + first[..., None], inside, fy, fx, right=1, down=spec.width + 2)


def _sample(table: Array, at: Samples) -> Array:
    """Returns samples [i g p, r] in the table's type, in which TPUs write them."""
    flat = (x.ravel() for x in (at.index, at.fy, at.fx))
    return sample_rows(table, *flat, right=at.right, down=at.down)


def _unit_products(x: Array, sampled: Array) -> Array:
    """Multiplies [i, g, p, m, u] by [i, g, p, r]: sums over u, float32 [i, g, p, m].

    The sum is a product, as in `sum_last`, with ones in a block for each unit: for CPUs this is
    quicker than to cut the channels into units first.
    """
    m, u = x.shape[-2:]
    blocks = jnp.repeat(jnp.eye(m, dtype=jnp.float32), u, axis=0)
    products = x.reshape(sampled.shape) * sampled
    sums = jnp.matmul(products.reshape(-1, m * u), blocks, precision="float32")
    return sums.reshape(x.shape[:-1])


def _sum_units(x: Array) -> Array:
    """Sums over the last axis, which is short: a reduction takes CPUs several times as long."""
    return functools.reduce(jnp.add, (x[..., m] for m in range(x.shape[-1])))


def _places(offsets: Array, spec: _Spec) -> Array:
    """Returns the sampling positions [s, k, i, g, p, 2], (y, x) in pixels."""
    grid = rearrange(pixel_grid(spec.height, spec.width), "h w y -> 1 1 1 1 (h w) y")
    return offsets + rearrange(tap_positions(spec.window), "k y -> 1 k 1 1 1 y") + grid


ATTENTION = {
    "plain": deform_attn_plain,
    "streamed": deform_attn_streamed,
    "at_once": deform_attn_in_one,
}
