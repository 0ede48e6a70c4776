"""Small layers that several networks share. Features are [b, h, w, c] or [b, t, h, w, c]."""

import functools
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.ops.conv import conv2d

Dtype = Any

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.1)

# PyTorch's default for convolutions: uniform in +-1/sqrt(fan_in).
conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
linear_init = nn.initializers.truncated_normal(0.02)


class Conv(nn.Module):
    """A 2-D convolution per frame, zero padded so that stride 1 keeps the size.

    x: [..., h, w, in] with any leading axes. Returns [..., h/stride, w/stride, features].
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    kernel_init: nn.initializers.Initializer = conv_init
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        lead, x = x.shape[:-3], x.reshape(-1, *x.shape[-3:]).astype(self.dtype)
        y = conv2d(x, kernel, stride=self.stride, groups=self.groups)
        return (y + bias).reshape(*lead, *y.shape[1:])


class Linear(nn.Dense):
    """A dense layer with the transformers' initialisation."""

    kernel_init: nn.initializers.Initializer = linear_init


class Mlp(nn.Module):
    """Linear, exact GELU, linear back to the input's width."""

    hidden: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.gelu(Linear(self.hidden, dtype=self.dtype, name="fc1")(x), approximate=False)
        return Linear(x.shape[-1], dtype=self.dtype, name="fc2")(y)


def layer_norm(name: str, dtype: Dtype) -> nn.LayerNorm:
    """Returns PyTorch's LayerNorm (eps 1e-5); its statistics are float32 whatever `dtype`."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


def map_scan(module: nn.Module, body, xs, *, remat: bool = False):
    """Applies `body(module, x)` along the first axis of `xs`, one entry at a time.

    So memory does not grow with the clip. remat: recompute intermediate values in the backward
    pass instead of keeping them.
    """
    function = nn.remat(body, prevent_cse=False) if remat else body
    scan = nn.scan(
        lambda module, _, x: ((), function(module, x)),
        variable_broadcast="params",
        split_rngs={"params": False},
    )
    return scan(module, (), xs)[1]


def to_clips(x: Array, n: int) -> Array:
    """Cuts [b, t, ...] into clips of n frames, clips first: [t/n, b, n, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, n, *x.shape[2:]), 1, 0)


def from_clips(x: Array) -> Array:
    """Inverts `to_clips`: [k, b, n, ...] -> [b, k n, ...]."""
    return rearrange(x, "k b n ... -> b (k n) ...")
