"""Swin blocks over the frames of a clip: shifted windows in time and space.

Source: RVRT, section 3.2, after Liu et al., "Video Swin Transformer", CVPR 2022. Features are
[b, t, h, w, c]. The statistics of the norms and the softmax are float32 whatever `dtype`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Conv, Dtype, Linear, Mlp, dense, layer_norm, linear_init
from rvrt_jax.ops import window as win
from rvrt_jax.ops.window_attention import attend


class ThreeLinear(nn.Module):
    """Three linear layers of one input, whose parameters are stored as one layer's.

    Returns three arrays like x with `features` channels. The biases are added after the cut: so
    GPUs' compiler makes all three in one kernel, not in one each.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        shape = (x.shape[-1], 3 * self.features)
        kernel = self.param("kernel", linear_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[1:])
        x, kernel, bias = (jnp.asarray(y).astype(self.dtype) for y in (x, kernel, bias))
        parts = jnp.split(dense(x, kernel), 3, axis=-1)
        biases = jnp.split(bias, 3)
        return [y + b[(None,) * (y.ndim - 1)] for y, b in zip(parts, biases, strict=True)]


class WindowAttention(nn.Module):
    """Self-attention inside windows with a learned bias per relative position.

    x: [b, windows, tokens, c]; sides: bool [windows, tokens, axes] or None, what tokens may see of
    each other (`ops.window.shift_sides`). `window` is the full window, whose bias table is stored;
    a shrunk one has fewer tokens.
    """

    window: win.Size3
    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, sides: Array | None) -> Array:
        tokens, c = x.shape[-2:]
        parts = ThreeLinear(c, dtype=self.dtype, name="qkv")(x)
        q, k, v = (rearrange(part, "b n l (a d) -> b n l a d", a=self.heads) for part in parts)
        bias = self.bias()[:, :tokens, :tokens]  # of a shrunk window: the leading block, published
        y = attend(q, k, v, bias, sides)
        return Linear(c, dtype=self.dtype, name="proj")(rearrange(y, "b n l a d -> b n l (a d)"))

    def bias(self) -> Array:
        """Returns the bias [heads, tokens, tokens] of the full window."""
        t, y, x = self.window
        rows = (2 * t - 1) * (2 * y - 1) * (2 * x - 1)
        table = self.param("relative_position_bias", linear_init, (rows, self.heads))
        if self.has_variable("biases", "full"):  # looked up once for all calls
            return self.get_variable("biases", "full")
        return position_bias(table, self.window)


def position_bias(table: Array, window: win.Size3) -> Array:
    """Looks up the bias [heads, tokens, tokens] of a window, float32."""
    table = jnp.asarray(table)  # a tracer cannot index a NumPy array
    return rearrange(table[win.relative_position_index(window)], "q k a -> a q k")


def position_biases(params: Any, window: win.Size3) -> Any:
    """Looks up the biases of all layers in a tree of parameters, for the collection "biases"."""
    found = {}
    for name, value in params.items():
        if name == "relative_position_bias":
            found["full"] = position_bias(value, window)
        elif isinstance(value, Mapping) and (inside := position_biases(value, window)):
            found[name] = inside
    return found


class SwinLayer(nn.Module):
    """Window attention and an MLP, each behind a norm and around a residual."""

    window: win.Size3
    heads: int
    shifted: bool
    mlp_ratio: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = x.shape[1:4]
        window, shift = win.fit_window(size, self.window, shifted=self.shifted)
        pads = [-s % n for s, n in zip(size, window, strict=True)]
        attention = WindowAttention(self.window, self.heads, dtype=self.dtype, name="attn")
        norm1, norm2 = (layer_norm(name, self.dtype) for name in ("norm1", "norm2"))
        mlp = Mlp(int(x.shape[-1] * self.mlp_ratio), dtype=self.dtype, name="mlp")

        def to_windows(x: Array) -> Array:
            return win.partition(jnp.roll(x, [-s for s in shift], axis=(1, 2, 3)), window)

        def from_windows(x: Array, size: win.Sizes) -> Array:
            return jnp.roll(win.merge(x, window, size), shift, axis=(1, 2, 3))

        t, h, w = size
        padded = t + pads[0], h + pads[1], w + pads[2]
        sides = win.shift_sides(padded, window, shift) if any(shift) else None
        if not any(pads):  # all of the layer in windows: what follows moves features only once
            x = to_windows(x)
            x = x + attention(norm1(x), sides)
            return from_windows(x + mlp(norm2(x)), size)
        y = jnp.pad(norm1(x), [(0, 0), *((0, n) for n in pads), (0, 0)])  # padding takes part
        y = from_windows(attention(to_windows(y), sides), padded)
        x = x + y[:, :t, :h, :w]
        return x + mlp(norm2(x))


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
