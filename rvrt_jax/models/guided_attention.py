"""Guided deformable attention: aligns one clip of RVRT to the next.

Source: Liang et al., RVRT, NeurIPS 2022, arXiv 2206.02146, section 3.3. Features are
[b, n, h, w, c]; flow is (dx, dy) in pixels, sampling positions are (y, x).
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Conv, Dtype, Linear, Mlp, leaky_relu, mean_and_max_length
from rvrt_jax.ops.deform_attn import ATTENTION, Window2
from rvrt_jax.ops.precision import EXACT
from rvrt_jax.ops.sample import compose_flows, warp

LAST_OFFSETS = "offset_conv_5"  # the layer whose values are positions: float32 in any network


class GuidedDeformAttn(nn.Module):
    """Aligns the previous clip to the current one (RVRT section 3.3).

    q, k, v: [b, n, h, w, c], the current clip's and the previous clip's features and the previous
    clip's hidden state. flows: float32 [b, i, s, h, w, 2], for target frame i and slot s the flow
    to support frame (s + i) mod n. Returns the aligned features [b, n, h, w, c], the refined
    flows, the mean of the sampling offsets over groups and taps, and the mean and largest length
    of what is added to `flows`, [2].
    """

    clip_size: int
    groups: int
    heads: int
    window: Window2
    max_residue: float
    features: int
    implementation: str
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, q: Array, k: Array, v: Array, flows: Array) -> tuple[Array, Array, Array]:
        c = q.shape[-1]
        residue = self.predict_residue(q, v, flows)
        offsets = residue + rearrange(flows[..., ::-1], "b i s h w y -> b i h w s 1 1 y")
        linear = functools.partial(Linear, dtype=self.dtype)
        queries = linear(2 * c, name="q")(q)
        keys_values = jnp.concatenate([linear(2 * c, name="k")(k), linear(2 * c, name="v")(v)], -1)
        attend = functools.partial(
            ATTENTION[self.implementation], heads=self.heads, window=self.window
        )
        x = linear(c, name="proj")(jax.vmap(attend)(queries, keys_values, offsets))
        aligned = x + Mlp(2 * c, dtype=self.dtype, name="mlp")(x)
        refined = rearrange(offsets.mean((-3, -2)), "b i h w s y -> b i s h w y")[..., ::-1]
        return aligned, refined, mean_and_max_length(residue)

    def predict_residue(self, q: Array, v: Array, flows: Array) -> Array:
        """Returns the sampling offsets less `flows`, float32 [b, i, h, w, s, g, k, 2], (y, x)."""
        n, taps = self.clip_size, self.window[0] * self.window[1]
        support = (jnp.arange(n)[:, None] + jnp.arange(n)[None]) % n
        warped = jax.vmap(jax.vmap(jax.vmap(warp)))(v[:, support], flows)
        flow_input = rearrange(flows, "b i s h w x -> b i h w (s x)").astype(self.dtype)
        warped = rearrange(warped, "b i s h w c -> b i h w (s c)")
        x = jnp.concatenate([q, warped, flow_input], axis=-1)
        for layer, kernel in enumerate((1, 3, 3, 3, 3)):
            x = Conv(self.features, kernel, dtype=self.dtype, name=f"offset_conv_{layer}")(x)
            x = leaky_relu(x)
        zeros = nn.initializers.zeros
        last = functools.partial(Conv, kernel_init=zeros, precision=EXACT, dtype=jnp.float32)
        x = last(n * self.groups * taps * 2, 1, name=LAST_OFFSETS)(x)
        residue = self.max_residue * jnp.tanh(x.astype(jnp.float32))
        return rearrange(
            residue, "b i h w (s g k y) -> b i h w s g k y", s=n, g=self.groups, k=taps
        )


def clip_guidance(neighbours: Array, n: int) -> Array:
    """Composes flows between neighbours into each clip's flows to the previous clip.

    neighbours: [t - 1, b, h, w, 2] as `RVRT._flows` returns them. Returns, for target frame i and
    slot s, the flow to support frame (s + i) mod n of the previous clip, [k - 1, b, i, s, h, w, 2].
    f(i->j) = f(i->i-1) + warp(f(i-1->j), f(i->i-1)), RVRT section 3.3.
    """
    clips = (neighbours.shape[0] + 1) // n
    if clips == 1:
        return jnp.zeros((0, neighbours.shape[1], n, n, *neighbours.shape[2:]), jnp.float32)
    starts = jnp.arange(clips - 1)[:, None] * n
    pairs = neighbours[starts + jnp.arange(2 * n - 1)[None]]  # entry a - 1: from frame a to a - 1
    compose = jax.vmap(jax.vmap(compose_flows))
    to_frame: dict[int, Array] = {}
    targets = []
    for a in range(1, 2 * n):
        step = pairs[:, a - 1]
        to_frame = {j: compose(step, flow) for j, flow in to_frame.items()}
        if a - 1 < n:
            to_frame[a - 1] = step
        if a >= n:
            i = a - n
            targets.append(jnp.stack([to_frame[(s + i) % n] for s in range(n)], axis=2))
    return jnp.stack(targets, axis=2)
