"""FFDNet: single-image denoising with the noise level given. The baseline to denoise video.

Source: Zhang, Zuo and Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN Based Image
Denoising", IEEE TIP 2018, arXiv 1710.04026. Plain 3x3 convolutions work on the image folded to
half its size, with the noise level as one more channel; their result unfolds to the clean image.
"""

import functools

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import ParameterGroup, Size
from rvrt_jax.models.layers import Conv, Dtype
from rvrt_jax.ops.resize import pixel_shuffle

FOLD = 2


class FFDNet(nn.Module):
    """The whole network, as published for colour; see the module's docstring.

    Call with noisy video, float [b, t, h, w, 4] of any size: RGB in [0, 1] and sigma / 255, of
    which each 2x2 block's first pixel counts. Each frame is denoised on its own. Returns float32
    [b, t, h, w, 3], not clipped.

    `num_feat`: width; `num_conv`: convolutions in all. `dtype`: of the matrix products.
    """

    num_feat: int = 96
    num_conv: int = 12
    dtype: Dtype = jnp.float32

    scale = 1
    time_multiple = 1
    size_multiple = 1
    pad_multiple = 1
    window = None  # as many frames out as in
    centre = 0
    border = None
    takes_noise_level = True
    compute_fields = ("dtype",)

    @nn.nowrap
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Returns no groups: all parameters learn alike."""
        return ()

    @nn.nowrap
    def working_memory(self, call: Size) -> int:
        """Estimates the bytes that a clip of (frames, height, width) takes."""
        frames, height, width = call
        # Input and output of a convolution at a quarter of the pixels; frames in, out and folded.
        numbers = 2 * self.num_feat / FOLD**2 * jnp.dtype(self.dtype).itemsize + 4 * (4 + 3 + 7)
        return int(frames * height * width * numbers)

    @nn.nowrap
    def example_size(self) -> Size:
        """Returns one frame of one pixel."""
        return 1, 1, 1

    @nn.compact
    def __call__(self, video: Array) -> Array:
        if video.shape[-1] != 4:
            raise UserError(
                f"the video has {video.shape[-1]} channels; FFDNet takes 4 (RGB and sigma / 255)."
            )
        h, w = video.shape[2:4]
        even = [(0, 0), (0, 0), (0, -h % FOLD), (0, -w % FOLD), (0, 0)]
        video = jnp.pad(video.astype(jnp.float32), even, mode="edge")
        noisy, level = video[..., :3], video[..., ::FOLD, ::FOLD, 3:]
        folded = rearrange(noisy, "b t (h i) (w j) c -> b t h w (c i j)", i=FOLD, j=FOLD)
        x = jnp.concatenate([folded, level], axis=-1)
        conv = functools.partial(Conv, dtype=self.dtype)
        for i in range(self.num_conv - 1):
            x = nn.relu(conv(self.num_feat, name=f"conv_{i}")(x))
        x = conv(3 * FOLD**2, name=f"conv_{self.num_conv - 1}")(x)
        return pixel_shuffle(x.astype(jnp.float32), FOLD)[:, :, :h, :w]
