"""Guided deformable attention: one query per pixel against keys and values sampled at N x K places.

Source: RVRT, section 3.3 (guided deformable attention). Layout of both implementations:
q [n, h, w, c]: queries of the n target frames. kv [n, h, w, 2c]: keys, then values, of the n support
frames. offsets [n, h, w, s, g, k, 2]: for each target frame and pixel, the slots s = n, groups g and
taps k (row-major in an odd window), the displacement (y, x) in pixels added to pixel + tap. Slot s
of target frame i samples support frame (s + i) mod n. The 2c channels of kv are cut into g groups
that move together, so keys and values are sampled at different places.
"""

import functools
import math

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax import Array

from rvrt_jax.ops.sample import bilinear_sample_plain, corners, pixel_grid

Window2 = tuple[int, int]


def tap_positions(window: Window2) -> Array:
    """Returns the taps of an odd window, float32 [taps, 2], (y, x) from its centre, row-major."""
    centre = jnp.array([(size - 1) / 2 for size in window], jnp.float32)
    return pixel_grid(*window).reshape(-1, 2) - centre


def deform_attn_plain(q: Array, kv: Array, offsets: Array, *, heads: int, window: Window2) -> Array:
    """Samples all keys and values at once, then attends: the readable definition.

    Shapes as in the module's docstring. Returns [n, h, w, c] in q.dtype. Needs memory for
    n * n * taps * 2c floats per pixel.
    """
    n, h, w, _ = q.shape
    grid = pixel_grid(h, w)[:, :, None, None, None]
    coords = rearrange(grid + tap_positions(window) + offsets, "i h w s g k y -> i s g h w k y")
    frames = rearrange(kv, "n h w (g r) -> n g h w r", g=offsets.shape[4])
    support = (jnp.arange(n)[None, :] + jnp.arange(n)[:, None]) % n
    sample = jax.vmap(jax.vmap(jax.vmap(bilinear_sample_plain)))
    sampled = sample(frames[support], coords)
    sampled = rearrange(sampled, "i s g h w k r -> i h w (s k) (g r)")
    keys, values = jnp.split(sampled, 2, axis=-1)
    split_heads = functools.partial(rearrange, pattern="... (a d) -> ... a d", a=heads)
    q, keys, values = split_heads(q), split_heads(keys), split_heads(values)
    logits = jnp.einsum("ihwad,ihwmad->ihwam", q, keys) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(q.dtype)
    attended = jnp.einsum("ihwam,ihwmad->ihwad", weights, values)
    return rearrange(attended, "i h w a d -> i h w (a d)")


def _sample_groups(rows: Array, coords: Array, height: int, width: int) -> Array:
    """Samples frames [n, g, (h+2)(w+2), r] at coords [n, g, p, 2], all taps' groups at once."""
    index, _, fy, fx = corners(coords, height, width)

    def sample(rows: Array, index: Array, fy: Array, fx: Array) -> Array:
        fetch = lambda shift: rows.at[index + shift].get(mode="promise_in_bounds")  # noqa: E731
        fy, fx = fy[:, None].astype(rows.dtype), fx[:, None].astype(rows.dtype)
        top = (1 - fx) * fetch(0) + fx * fetch(1)
        bottom = (1 - fx) * fetch(width + 2) + fx * fetch(width + 3)
        return (1 - fy) * top + fy * bottom

    return jax.vmap(jax.vmap(sample))(rows, index, fy, fx)


def deform_attn_streamed(
    q: Array, kv: Array, offsets: Array, *, heads: int, window: Window2
) -> Array:
    """Goes over the samples one at a time with an online softmax: same values, little memory."""
    n, h, w, c = q.shape
    if offsets.shape[4] % 2:  # keys and values share a group: give each its own copy of the positions
        offsets = repeat(offsets, "i h w s g k y -> i h w s (g two) k y", two=2)
    slots, groups, taps = offsets.shape[3:6]
    half, head = groups // 2, c // heads
    unit = math.gcd(c // half, head)  # channels that share both a group and a head
    pads = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
    rows = jnp.pad(rearrange(kv, "n h w (g r) -> n g h w r", g=groups), pads)
    rows = rearrange(rows, "n g h w r -> n g (h w) r")
    q = rearrange(q * head**-0.5, "i h w (g m u) -> i g (h w) m u", g=half, u=unit)
    grid = rearrange(pixel_grid(h, w), "h w y -> (h w) y")
    xs = (
        rearrange(offsets, "i h w s g k y -> (s k) i g (h w) y"),
        jnp.repeat(jnp.arange(slots), taps),
        jnp.tile(tap_positions(window), (slots, 1)),
    )

    def per_head(x: Array) -> Array:
        """Sums the units of each head and hands every unit its head's sum."""
        x = rearrange(x, "i g p m -> i (g m) p")
        x = rearrange(x, "i (a m) p -> i a m p", a=heads).sum(2)
        return rearrange(repeat(x, "i a p -> i (a m) p", m=head // unit), "i (g m) p -> i g p m", g=half)

    def step(carry, x):
        peak, total, mean = carry
        offset, slot, tap = x
        sampled = _sample_groups(jnp.roll(rows, -slot, axis=0), grid + tap + offset, h, w)
        sampled = rearrange(sampled, "i g p (m u) -> i g p m u", u=unit)
        logits = (q * sampled[:, :half]).sum(-1, dtype=jnp.float32)
        logits = logits if head == unit else per_head(logits)
        new_peak = jnp.maximum(peak, logits)
        decay, weight = jnp.exp(peak - new_peak), jnp.exp(logits - new_peak)
        mean = mean * decay[..., None] + weight[..., None] * sampled[:, half:]
        return (new_peak, total * decay + weight, mean), None

    peak = jnp.full(q.shape[:-1], -jnp.inf, jnp.float32)
    start = peak, jnp.zeros_like(peak), jnp.zeros(q.shape, jnp.float32)
    (_, total, mean), _ = jax.lax.scan(step, start, xs)
    attended = (mean / total[..., None]).astype(q.dtype)
    return rearrange(attended, "i g (h w) m u -> i h w (g m u)", h=h)


ATTENTION = {"plain": deform_attn_plain, "streamed": deform_attn_streamed}
