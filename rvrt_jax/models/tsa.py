"""TSA, EDVR's fusion: aligned frames weigh by how much they resemble the middle one.

Source: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716, section 3.3. Features are [b, h, w, c].
"""

import functools

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Conv, Dtype, leaky_relu
from rvrt_jax.models.pcd import concatenate, enlarge


class TsaFusion(nn.Module):
    """Fuses aligned frames by temporal, then spatial attention.

    aligned: [b, t, h, w, c]; `centre` is the place of the middle frame. Returns [b, h, w, c].
    """

    centre: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, aligned: Array) -> Array:
        features = aligned.shape[-1]
        conv = functools.partial(Conv, features, random_bias=True, dtype=self.dtype)
        reference = conv(name="temporal_attn1")(aligned[:, self.centre])
        embedded = conv(name="temporal_attn2")(aligned)
        similarity = (embedded * reference[:, None]).sum(-1, keepdims=True, dtype=jnp.float32)
        weighted = aligned * nn.sigmoid(similarity).astype(self.dtype)
        weighted = rearrange(weighted, "b t h w c -> b h w (t c)")
        fused = leaky_relu(conv(kernel=1, name="feat_fusion")(weighted))

        full = leaky_relu(conv(kernel=1, name="spatial_attn1")(weighted))
        half = leaky_relu(conv(kernel=1, name="spatial_attn2")(_pooled(full)))
        quarter = leaky_relu(conv(kernel=1, name="spatial_attn_l1")(half))
        quarter = leaky_relu(conv(name="spatial_attn_l2")(_pooled(quarter)))
        quarter = leaky_relu(conv(name="spatial_attn_l3")(quarter))
        half = leaky_relu(conv(name="spatial_attn3")(half)) + enlarge(quarter)
        half = leaky_relu(conv(kernel=1, name="spatial_attn4")(half))
        scores = conv(name="spatial_attn5")(enlarge(half))
        bias = leaky_relu(conv(kernel=1, name="spatial_attn_add1")(scores))
        bias = conv(kernel=1, name="spatial_attn_add2")(bias)
        return fused * nn.sigmoid(scores) * 2 + bias


def _pooled(x: Array) -> Array:
    """Halves [b, h, w, c] by maximum and by mean of 3x3 pixels, joined: [b, h/2, w/2, 2c].

    Beyond the border the mean counts zeros, the maximum nothing.
    """
    options = {"window_shape": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
    return concatenate(nn.max_pool(x, **options), nn.avg_pool(x, **options))
