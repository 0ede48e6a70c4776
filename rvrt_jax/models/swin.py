"""Swin blocks over the frames of a clip: shifted windows in time and space.

Source: RVRT, section 3.2, after Liu et al., "Video Swin Transformer", CVPR 2022. Features are
[b, t, h, w, c]. The statistics of the norms and the softmax are float32 whatever `dtype`.
"""

import functools

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Conv, Dtype, Linear, Mlp, layer_norm, linear_init
from rvrt_jax.ops import window as win
from rvrt_jax.ops.precision import precision_of


class WindowAttention(nn.Module):
    """Self-attention inside windows with a learned bias per relative position.

    x: [b, windows, tokens, c]; mask: [windows, tokens, tokens] or None, added to the logits.
    `window` is the full window, whose bias table is stored; a shrunk one has fewer tokens.
    """

    window: win.Size3
    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        tokens, c = x.shape[-2:]
        qkv = Linear(3 * c, dtype=self.dtype, name="qkv")(x)
        # Cut before they are laid out anew: after it, each cut is a copy on accelerators.
        q, k, v = (
            rearrange(part, "b n l (a d) -> b n a l d", a=self.heads)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        einsum = functools.partial(jnp.einsum, precision=precision_of(self.dtype))
        logits = einsum("bnaqd,bnkad->bnaqk", q, k.swapaxes(2, 3)).astype(jnp.float32)
        logits = logits * q.shape[-1] ** -0.5 + self.position_bias(tokens)[None, None]
        if mask is not None:
            logits = logits + mask[None, :, None]
        weights = nn.softmax(logits).astype(self.dtype)
        y = rearrange(einsum("bnaqk,bnakd->bnaqd", weights, v), "b n a l d -> b n l (a d)")
        return Linear(c, dtype=self.dtype, name="proj")(y)

    def position_bias(self, tokens: int) -> Array:
        """Returns the bias [heads, tokens, tokens] in float32.

        A shrunk window takes the leading block of the full window's index, as published.
        """
        t, y, x = self.window
        rows = (2 * t - 1) * (2 * y - 1) * (2 * x - 1)
        table = self.param("relative_position_bias", linear_init, (rows, self.heads))
        index = win.relative_position_index(self.window)[:tokens, :tokens]
        table = jnp.asarray(table)  # a tracer cannot index a NumPy array
        return rearrange(table[index], "q k a -> a q k")


class SwinLayer(nn.Module):
    """Window attention and an MLP, each behind a norm and around a residual."""

    window: win.Size3
    heads: int
    shifted: bool
    mlp_ratio: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + self.attend(layer_norm("norm1", self.dtype)(x))
        hidden = int(x.shape[-1] * self.mlp_ratio)
        mlp = Mlp(hidden, dtype=self.dtype, name="mlp")
        return x + mlp(layer_norm("norm2", self.dtype)(x))

    def attend(self, x: Array) -> Array:
        """Pads, rolls, attends inside windows and undoes both. Padded tokens take part."""
        t, h, w = size = x.shape[1:4]
        window, shift = win.fit_window(size, self.window, shifted=self.shifted)
        pads = [(0, -s % n) for s, n in zip(size, window, strict=True)]
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
        padded = x.shape[1:4]
        x = jnp.roll(x, [-s for s in shift], axis=(1, 2, 3))
        mask = win.shift_mask(padded, window, shift) if any(shift) else None
        attention = WindowAttention(self.window, self.heads, dtype=self.dtype, name="attn")
        y = win.merge(attention(win.partition(x, window), mask), window, padded)
        return jnp.roll(y, shift, axis=(1, 2, 3))[:, :t, :h, :w]


class Rstb(nn.Module):
    """Residual Swin transformer block: `x + linear(layers(x))`, every other layer shifted."""

    window: win.Size3
    depth: int
    heads: int
    mlp_ratio: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for j in range(self.depth):
            layer = SwinLayer(
                self.window, self.heads, j % 2 == 1, self.mlp_ratio, self.dtype, name=f"layer_{j}"
            )
            y = layer(y)
        return x + Linear(x.shape[-1], dtype=self.dtype, name="linear")(y)


class RstbWithInputConv(nn.Module):
    """A 3x3 (grouped) convolution to `features` channels, then norm, blocks, norm."""

    features: int
    window: win.Size3
    num_blocks: int
    depth: int
    heads: int
    mlp_ratio: float
    groups: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, groups=self.groups, dtype=self.dtype, name="conv")(x)
        x = layer_norm("norm_in", self.dtype)(x)
        for i in range(self.num_blocks):
            block = Rstb(
                self.window, self.depth, self.heads, self.mlp_ratio, self.dtype, name=f"rstb_{i}"
            )
            x = block(x)
        return layer_norm("norm_out", self.dtype)(x)
