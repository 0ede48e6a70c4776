"""BasicVSR: bidirectional recurrent video super-resolution, x4.

Source: Chan et al., "BasicVSR: The Search for Essential Components in Video Super-Resolution and
Beyond", CVPR 2021, arXiv 2012.02181. One trunk goes backward in time and one forward; each warps
its state to the next frame by optical flow. Features are [b, h, w, c]; flow is (dx, dy) in pixels.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models import memory
from rvrt_jax.models.contract import ParameterGroup, Size
from rvrt_jax.models.layers import (
    Conv,
    Dtype,
    Remat,
    ResidualBlock,
    leaky_relu,
    map_scan,
    remat_choice,
    scan,
)
from rvrt_jax.models.spynet import SpyNet, neighbour_flows
from rvrt_jax.ops.resize import pixel_shuffle, resize_bilinear
from rvrt_jax.ops.sample import warp


class Trunk(nn.Module):
    """One recurrent branch: warps its state to the next frame and refines it together with it."""

    num_feat: int
    num_block: int
    remat: Remat
    dtype: Dtype

    def setup(self):
        self.conv = Conv(self.num_feat, dtype=self.dtype)
        self.block = [ResidualBlock(self.dtype) for _ in range(self.num_block)]

    def __call__(self, frames: Array, flows: Array, *, constant: int = 0) -> Array:
        """Runs over all frames in the given order.

        frames: [t, b, h, w, 3]. flows: [t - 1, b, h, w, 2], from the (m+1)-th frame to the m-th.
        constant: as in `layers.scan`. Returns the states [t, b, h, w, c].
        """
        state = jnp.zeros((*frames.shape[1:-1], self.num_feat), self.dtype)
        none = jnp.zeros((1, *frames.shape[1:-1], 2), flows.dtype)  # zeros, wherever they move
        xs = frames, jnp.concatenate([none, flows])
        return scan(self, Trunk.step, state, xs, remat=self.remat, constant=constant)[1]

    def step(self, state: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        """Moves the state on to the next frame, [b, h, w, 3], along its flow."""
        frame, flow = inputs
        warped = jax.vmap(warp)(state, flow)
        x = leaky_relu(self.conv(jnp.concatenate([frame.astype(self.dtype), warped], axis=-1)))
        for block in self.block:
            x = block(x)
        return x, x


class BasicVSR(nn.Module):
    """The whole network, exactly as published; see the module's docstring.

    Call with video, float [b, t, h, w, 3] RGB in [0, 1], of any size. Returns float32
    [b, t, 4h, 4w, 3], not clipped. `backward_frames`: as `models.contract` says.

    `num_feat`: width; `num_block`: residual blocks of each trunk. `remat`: recompute each frame's
    step in the backward pass instead of keeping its intermediate values, but for what
    `remat_policy` keeps ("nothing", or "dots": the results of matrix products). `dtype`: of the
    matrix products; flow, positions and the final sum are float32 always.
    """

    num_feat: int = 64
    num_block: int = 30
    remat: bool = False
    remat_policy: str = "nothing"
    dtype: Dtype = jnp.float32

    scale = 4  # output size over input size
    time_multiple = 1  # what the numbers of frames, lines and columns must be multiples of: any
    size_multiple = 1
    pad_multiple = 1
    window = None  # as many frames out as in
    centre = 0
    border = None
    takes_noise_level = False
    compute_fields = ("remat", "remat_policy", "dtype")

    @nn.nowrap
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Returns the parts that recipes can treat apart."""
        return (ParameterGroup("flow", "spynet"),)

    @nn.nowrap
    def working_memory(self, call: Size) -> int:
        """Estimates the bytes that a clip of (frames, height, width) takes."""
        return memory.of_clip(self, call, self.num_feat)

    @nn.nowrap
    def example_size(self) -> Size:
        """Returns one frame of one pixel."""
        return 1, 1, 1

    def setup(self):
        conv = functools.partial(Conv, dtype=self.dtype)
        self.spynet = SpyNet()
        trunk = functools.partial(Trunk, self.num_feat, self.num_block, self._remat, self.dtype)
        self.backward, self.forward = trunk(), trunk()
        self.fusion = conv(self.num_feat, kernel=1)
        self.upconv1, self.upconv2 = conv(4 * self.num_feat), conv(4 * self.num_feat)
        self.conv_hr = conv(self.num_feat)
        self.conv_last = conv(3)

    def __call__(self, video: Array, *, backward_frames: int = 0) -> Array:
        if video.shape[-1] != 3:
            raise UserError(f"the video has {video.shape[-1]} channels; BasicVSR takes 3 (RGB).")
        frames = jnp.moveaxis(video.astype(jnp.float32), 1, 0)
        early = len(frames) - backward_frames if backward_frames else 0
        to_next, to_previous = neighbour_flows(
            self.spynet, frames, remat=self._remat, constant=early
        )
        self.sow("intermediates", "flows_backward", to_next)
        backward = self.backward(frames[::-1], to_next[::-1], constant=-early)[::-1]
        forward = self.forward(frames, to_previous, constant=early)
        xs = (frames, backward, forward)
        large = map_scan(self, BasicVSR._upsample, xs, remat=self._remat, constant=early)
        return jnp.moveaxis(large, 0, 1)

    @property
    def _remat(self) -> Remat:
        return remat_choice(self.remat, self.remat_policy)

    def _upsample(self, inputs: tuple[Array, Array, Array]) -> Array:
        """Makes one frame, [b, 4h, 4w, 3], of the input frame and both trunks' states."""
        frame, backward, forward = inputs
        x = leaky_relu(self.fusion(jnp.concatenate([backward, forward], axis=-1)))
        for upconv in (self.upconv1, self.upconv2):
            x = leaky_relu(pixel_shuffle(upconv(x)))
        residual = self.conv_last(leaky_relu(self.conv_hr(x))).astype(jnp.float32)
        h, w = frame.shape[1:3]
        return residual + jax.vmap(lambda f: resize_bilinear(f, (4 * h, 4 * w)))(frame)
