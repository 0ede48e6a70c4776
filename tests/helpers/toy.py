"""Networks whose results are known without running them."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from rvrt_jax.models import memory

PARAMS = {"gain": np.float32(1)}


class Toy(nn.Module):
    """Upsamples by repetition, after a blur over 3x3 pixels and 3 frames if asked."""

    scale: int = 4
    time_multiple: int = 2
    size_multiple: int = 1
    pad_multiple: int = 8
    takes_noise_level: bool = False
    blur: bool = False
    width: int = 4  # of the features, for planning alone: there are none
    dtype: type = jnp.float32
    window = None
    centre = 0
    border = None
    compute_fields = ("dtype",)

    @nn.nowrap
    def parameter_groups(self):
        return ()

    @nn.nowrap
    def working_memory(self, call):
        return memory.of_clip(self, call, self.width)

    @nn.nowrap
    def example_size(self):
        return self.time_multiple, self.size_multiple, self.size_multiple

    @nn.compact
    def __call__(self, video):
        gain = self.param("gain", nn.initializers.ones, ())
        _, t, h, w, c = video.shape
        assert c == 3 + self.takes_noise_level
        assert (t % self.time_multiple, h % self.size_multiple, w % self.size_multiple) == (0, 0, 0)
        if self.takes_noise_level:
            video = video[..., :3] + video[..., 3:]
        if self.blur:
            video = nn.avg_pool(video, (3, 3, 3), padding="SAME", count_include_pad=True)
        return gain * jnp.repeat(jnp.repeat(video, self.scale, axis=2), self.scale, axis=3)


class Slide(nn.Module):
    """A weighted sum over the window plus ten times the middle frame, enlarged by repetition."""

    window: int = 5
    scale: int = 2
    time_multiple: int = 1
    size_multiple: int = 4
    pad_multiple: int = 4
    border: str = "replicate"
    centre: int = 2
    dtype: type = jnp.float32
    takes_noise_level = False
    compute_fields = ("dtype",)

    def __call__(self, video):
        frames = jnp.moveaxis(video, 1, 0)
        self.sow("intermediates", "offset_lengths", jnp.array([[1.0, 3.0], [2.0, 5.0]]))
        return self.fuse((frames,), frames[self.centre])[:, None]

    @nn.nowrap
    def parameter_groups(self):
        return ()

    @nn.nowrap
    def working_memory(self, call):
        return memory.of_windows(self, call, channels=3, frames=self.window)

    @nn.nowrap
    def example_size(self):
        return self.window, self.size_multiple, self.size_multiple

    def setup(self):
        self.gain = self.param("gain", nn.initializers.ones, ())

    @nn.nowrap
    def weight(self, place):
        return 1.0 + place**2

    def features(self, frames):
        assert frames.shape[1] % 4 == frames.shape[2] % 4 == 0
        return (frames,)

    def fuse(self, pyramids, middle):
        (frames,) = pyramids
        total = sum(self.weight(i) * frames[i] for i in range(self.window)) + 10 * middle
        self.sow("diagnostics", "size", jnp.abs(total).max(), reduce_fn=lambda _, x: x)
        return self.gain * jnp.repeat(jnp.repeat(total, self.scale, 1), self.scale, 2)


class PlainFlow(nn.Module):
    """In place of SpyNet, whose six levels would take most of the time to trace."""

    @nn.compact
    def __call__(self, reference, support):
        return nn.Conv(2, (3, 3), name="conv")(reference - support)
