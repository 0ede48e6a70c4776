"""PCD, EDVR's alignment: deformable convolutions from the coarse level of a pyramid to the fine.

Source: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, section 3.2. Features are [b, h, w, c]; a pyramid is a tuple of three, of which each has
half the size of the one before.
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Conv, Dtype, conv_init, leaky_relu
from rvrt_jax.ops.deform_conv import DEFORM_CONV
from rvrt_jax.ops.precision import EXACT
from rvrt_jax.ops.resize import resize_bilinear

Pyramid = tuple[Array, Array, Array]


def enlarge(x: Array, factor: int = 2) -> Array:
    """Enlarges [b, h, w, c] bilinearly, half-pixel centres, in x.dtype."""
    _, h, w, _ = x.shape
    resize = functools.partial(resize_bilinear, size=(factor * h, factor * w))
    return jax.vmap(resize)(x).astype(x.dtype)


def concatenate(*arrays: Array) -> Array:
    """Joins features along their channels."""
    return jnp.concatenate(arrays, axis=-1)


class DeformPack(nn.Module):
    """A 3x3 modulated deformable convolution whose offsets come from other features.

    x, guide: [b, h, w, c], to be sampled and to say where. Returns [b, h, w, c], and the mean and
    the maximum of the offsets' absolute values, float32 [b, 2], in pixels of x.
    """

    groups: int
    bound: float | None = None
    implementation: str = "streamed"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, guide: Array) -> tuple[Array, Array]:
        c, taps = x.shape[-1], 9
        start = nn.initializers.zeros
        conv = Conv(3 * self.groups * taps, kernel_init=start, precision=EXACT, name="conv_offset")
        offsets, mask = jnp.split(conv(guide), [2 * self.groups * taps], -1)
        offsets = rearrange(offsets, "b h w (g k d) -> b h w g k d", g=self.groups, k=taps)
        mask = nn.sigmoid(rearrange(mask, "b h w (g k) -> b h w g k", g=self.groups))
        if self.bound is not None:
            offsets = jnp.clip(offsets, -self.bound, self.bound)
        kernel = self.param("kernel", conv_init, (3, 3, c, c)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (c,)).astype(self.dtype)
        convolve = jax.vmap(DEFORM_CONV[self.implementation], (0, 0, 0, None))
        out = (
            convolve(x.astype(self.dtype), offsets, mask.astype(self.dtype), kernel)
            + bias[None, None, None]
        )
        size = jnp.abs(jax.lax.stop_gradient(offsets))
        size = size.reshape(len(size), -1)
        return out, jnp.stack([size.mean(-1), size.max(-1)], axis=-1)


class PcdAlign(nn.Module):
    """Aligns a frame's pyramid to the middle frame's, from coarse to fine, then once more.

    Returns the aligned features of the finest level, [b, h, w, c], and the offsets' mean and
    maximum of the four deformable convolutions (levels 3, 2, 1, cascade), float32 [b, 4, 2].
    """

    groups: int
    bound: float | None = None
    implementation: str = "streamed"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, neighbour: Pyramid, middle: Pyramid) -> tuple[Array, Array]:
        features = neighbour[0].shape[-1]
        conv = functools.partial(Conv, features, random_bias=True, dtype=self.dtype)
        pack = functools.partial(
            DeformPack, self.groups, self.bound, self.implementation, self.dtype
        )
        guide: Array | None = None  # of the coarser level, and then of this one
        aligned: Array | None = None
        sizes = []
        for level in (3, 2, 1):
            at = f"l{level}"
            x, reference = neighbour[level - 1], middle[level - 1]
            own = leaky_relu(conv(name=f"offset_conv1_{at}")(concatenate(x, reference)))
            if guide is None:
                guide = leaky_relu(conv(name=f"offset_conv2_{at}")(own))
            else:  # offsets of the coarser level count twice as many pixels here
                own = concatenate(own, 2 * enlarge(guide))
                guide = leaky_relu(conv(name=f"offset_conv2_{at}")(own))
                guide = leaky_relu(conv(name=f"offset_conv3_{at}")(guide))
            sampled, size = pack(name=f"dcn_pack_{at}")(x, guide)
            sizes.append(size)
            if aligned is not None:
                sampled = conv(name=f"feat_conv_{at}")(concatenate(sampled, enlarge(aligned)))
            aligned = sampled if level == 1 else leaky_relu(sampled)
        assert guide is not None and aligned is not None
        guide = leaky_relu(conv(name="cas_offset_conv1")(concatenate(aligned, middle[0])))
        guide = leaky_relu(conv(name="cas_offset_conv2")(guide))
        aligned, size = pack(name="cas_dcnpack")(aligned, guide)
        return leaky_relu(aligned), jnp.stack([*sizes, size], axis=1)
