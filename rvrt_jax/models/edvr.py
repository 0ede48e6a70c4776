"""EDVR: restores the middle frame of a window, aligned by deformable convolution.

Source: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716. Each frame becomes a pyramid of three levels (`EDVR.features`), which
windows share; each frame's pyramid is aligned to the middle one's (PCD, in `pcd`), all are fused
(TSA) and restored (`EDVR.fuse`). Features are [b, h, w, c]; a pyramid is a tuple of three, of which
each has half the size of the one before.
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models import memory
from rvrt_jax.models.contract import ParameterGroup, Size
from rvrt_jax.models.each_frame import each_frame
from rvrt_jax.models.layers import Conv, Dtype, ResidualBlock, leaky_relu, map_scan
from rvrt_jax.models.pcd import PcdAlign, Pyramid, enlarge
from rvrt_jax.models.tsa import TsaFusion
from rvrt_jax.ops.deform_conv import DEFORM_CONV
from rvrt_jax.ops.resize import pixel_shuffle

_LARGE = {"num_feat": 128, "num_reconstruct_block": 40}
_DEBLUR = _LARGE | {"with_predeblur": True, "hr_in": True}
VARIANTS = {
    "edvr_m": {},
    "edvr_m_wotsa": {"with_tsa": False},
    "edvr_l": _LARGE,
    "edvr_l_wotsa": _LARGE | {"with_tsa": False},
    "edvr_l_vimeo": _LARGE | {"num_frame": 7},
    "edvr_l_srblur": _LARGE | {"with_predeblur": True},
    "edvr_l_deblur": _DEBLUR,
    "edvr_l_deblurcomp": _DEBLUR,
    "edvr_stage2": _DEBLUR | {"num_reconstruct_block": 20},
    "edvr_sr_stage2": _LARGE | {"hr_in": True, "num_reconstruct_block": 20},
}


class PreDeblur(nn.Module):
    """Sharpens the features of each frame before alignment.

    frames: [b, h, w, 3]. Returns [b, h, w, features], or a quarter of the size with `hr_in`.
    """

    features: int
    hr_in: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, frames: Array) -> Array:
        conv = functools.partial(Conv, self.features, random_bias=True, dtype=self.dtype)
        block = functools.partial(ResidualBlock, self.dtype)
        x = leaky_relu(conv(name="conv_first")(frames))
        if self.hr_in:
            x = leaky_relu(conv(stride=2, name="stride_conv_hr1")(x))
            x = leaky_relu(conv(stride=2, name="stride_conv_hr2")(x))
        half = leaky_relu(conv(stride=2, name="stride_conv_l2")(x))
        quarter = leaky_relu(conv(stride=2, name="stride_conv_l3")(half))
        half = block(name="resblock_l2_1")(half) + enlarge(block(name="resblock_l3")(quarter))
        for i in range(2):
            x = block(name=f"resblock_l1_{i}")(x)
        x = x + enlarge(block(name="resblock_l2_2")(half))
        for i in range(2, 5):
            x = block(name=f"resblock_l1_{i}")(x)
        return x


class EDVR(nn.Module):
    """The whole network, exactly as published; see the module's docstring.

    Call with one window of video, float [b, num_frame, h, w, 3] RGB in [0, 1]; h and w must be
    multiples of 4, or 16 with `hr_in`. Returns the middle frame, float32 [b, 1, 4h, 4w, 3], or
    [b, 1, h, w, 3] with `hr_in`, not clipped. `features` and `fuse` are its two halves.

    Fields have BasicSR's names. `num_feat`: width; the last stages have 64 channels whatever it
    is. `num_frame`: of a window, with the middle one at `center_frame_idx` (None: num_frame // 2).
    `hr_in`: frames come in the size that goes out. `with_predeblur`: sharpen features first (hr_in
    without it is the 2019 network for the second stage of super-resolution). `with_tsa`: fuse by
    attention instead of one 1x1 convolution. `offset_bound`: clips the sampling offsets, in pixels
    of each level; None, as published, does not. `deform_conv`: "streamed" (default;
    on GPUs all taps at once), "at_once" (so everywhere), or "plain", the readable definition.
    `remat`: recompute each frame's features and alignment, and the
    reconstruction, in the backward pass instead of keeping their intermediate values. `dtype`: of
    the matrix products; offsets, attention weights and the final sum are float32 always.

    While training, "offset_lengths" among the intermediates tells what the log shows of them. With
    mutable="diagnostics" it also returns {"diagnostics": {"offset_mean", "offset_max"}}, the
    mean and the maximum of all offsets' absolute values, in pixels.
    """

    num_feat: int = 64
    num_frame: int = 5
    deformable_groups: int = 8
    num_extract_block: int = 5
    num_reconstruct_block: int = 10
    center_frame_idx: int | None = None
    hr_in: bool = False
    with_predeblur: bool = False
    with_tsa: bool = True
    offset_bound: float | None = None
    deform_conv: str = "streamed"
    remat: bool = False
    dtype: Dtype = jnp.float32

    time_multiple = 1  # a clip may have any number of frames: a window slides over it
    takes_noise_level = False
    compute_fields = ("deform_conv", "remat", "dtype")

    @nn.nowrap
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Returns the parts that recipes can treat apart."""
        fusion = (ParameterGroup("fusion", "fusion"),) if self.with_tsa else ()
        return (*fusion, ParameterGroup("dcn", "dcn"))

    @nn.nowrap
    def working_memory(self, call: Size) -> int:
        """Estimates the bytes that (windows, height, width) take."""
        return memory.of_windows(self, call, self.num_feat, self.num_frame)

    @nn.nowrap
    def example_size(self) -> Size:
        """Returns one window of the smallest frames."""
        return self.num_frame, self.size_multiple, self.size_multiple

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return 1 if self.hr_in else 4

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return 16 if self.hr_in else 4

    @property
    def pad_multiple(self) -> int:
        """What inference pads whole frames to: no more than the network needs."""
        return self.size_multiple

    @property
    def window(self) -> int:
        """How many frames go in for each that comes out."""
        return self.num_frame

    @property
    def centre(self) -> int:
        """The place in the window of the frame that comes out."""
        return self.num_frame // 2 if self.center_frame_idx is None else self.center_frame_idx

    @property
    def border(self) -> str:
        """The published rule for windows that reach beyond a clip (restoration/sliding.py)."""
        return "replicate" if self.with_predeblur else "reflection_circle"

    def setup(self):
        self._check_fields()
        c = self.num_feat
        conv = functools.partial(Conv, random_bias=True, dtype=self.dtype)
        block = functools.partial(ResidualBlock, self.dtype)
        if self.with_predeblur:
            self.predeblur = PreDeblur(c, self.hr_in, self.dtype)
            self.conv_1x1 = conv(c, kernel=1)
        elif self.hr_in:
            self.conv_first_1 = conv(c)
            self.conv_first_2, self.conv_first_3 = conv(c, stride=2), conv(c, stride=2)
        else:
            self.conv_first = conv(c)
        self.feature_extraction = [block() for _ in range(self.num_extract_block)]
        self.conv_l2_1, self.conv_l2_2 = conv(c, stride=2), conv(c)
        self.conv_l3_1, self.conv_l3_2 = conv(c, stride=2), conv(c)
        self.pcd_align = PcdAlign(
            self.deformable_groups, self.offset_bound, self.deform_conv, self.dtype
        )
        self.fusion = TsaFusion(self.centre, self.dtype) if self.with_tsa else conv(c, kernel=1)
        self.reconstruction = [block() for _ in range(self.num_reconstruct_block)]
        self.upconv1, self.upconv2 = conv(4 * c), conv(4 * 64)
        self.conv_hr, self.conv_last = conv(64), conv(3)

    def _check_fields(self) -> None:
        if self.num_feat % self.deformable_groups:
            raise UserError(
                f"num_feat is {self.num_feat}, no multiple of deformable_groups="
                f"{self.deformable_groups}; each group takes as many channels."
            )
        if not 0 <= self.centre < self.num_frame:
            raise UserError(
                f"center_frame_idx is {self.centre}, but a window has {self.num_frame} frames; "
                f"give 0 to {self.num_frame - 1}."
            )
        if self.deform_conv not in DEFORM_CONV:
            raise UserError(
                f"deform_conv is {self.deform_conv!r}; choose from {sorted(DEFORM_CONV)}."
            )

    def __call__(self, video: Array) -> Array:
        t, h, w, channels = video.shape[1:]
        if t != self.num_frame:
            raise UserError(
                f"the clip has {t} frames; EDVR takes windows of num_frame={self.num_frame}. "
                "Use rvrt_jax.restore, which slides a window over clips of any length."
            )
        if h % self.size_multiple or w % self.size_multiple:
            raise UserError(
                f"the frames are {h}x{w}; with hr_in={self.hr_in} height and width must be "
                f"multiples of {self.size_multiple}. Use rvrt_jax.restore, which pads."
            )
        if channels != 3:
            raise UserError(f"the video has {channels} channels; EDVR takes 3 (RGB).")
        frames = jnp.moveaxis(video.astype(jnp.float32), 1, 0)
        pyramids = each_frame(self, "features", frames, remat=self.remat)
        return self.fuse(pyramids, frames[self.centre])[:, None]

    def features(self, frames: Array) -> Pyramid:
        """Returns the pyramids of frames, [b, h, w, 3], which depend on nothing else."""
        if self.with_predeblur:
            x = self.conv_1x1(self.predeblur(frames))
        elif self.hr_in:
            x = leaky_relu(self.conv_first_1(frames))
            x = leaky_relu(self.conv_first_3(leaky_relu(self.conv_first_2(x))))
        else:
            x = leaky_relu(self.conv_first(frames))
        for block in self.feature_extraction:
            x = block(x)
        half = leaky_relu(self.conv_l2_2(leaky_relu(self.conv_l2_1(x))))
        quarter = leaky_relu(self.conv_l3_2(leaky_relu(self.conv_l3_1(half))))
        return x, half, quarter

    def fuse(self, pyramids: Pyramid, middle: Array) -> Array:
        """Restores the middle frames of windows.

        pyramids: of `features`, with the frames of the windows in front, [num_frame, b, h, w, c].
        middle: the frames themselves, [b, h, w, 3]. Returns float32 [b, scale * h, scale * w, 3].
        """
        reference = jax.tree.map(lambda level: level[self.centre], pyramids)
        aligned, sizes = each_frame(
            self.pcd_align, "__call__", pyramids, reference, remat=self.remat
        )
        self.sow("intermediates", "offset_lengths", sizes)
        self._report("offset_mean", sizes[..., 0].mean())
        self._report("offset_max", sizes[..., 1].max())
        aligned = jnp.moveaxis(aligned, 0, 1)
        self.sow("intermediates", "aligned", aligned)
        reconstruct = nn.remat(EDVR._reconstruct) if self.remat else EDVR._reconstruct
        middle = middle.astype(jnp.float32)
        base = middle if self.hr_in else enlarge(middle, 4)
        return reconstruct(self, aligned).astype(jnp.float32) + base

    def _reconstruct(self, aligned: Array) -> Array:
        """Fuses aligned frames, [b, t, h, w, c], and makes the residual, [b, 4h, 4w, 3]."""
        if not self.with_tsa:
            aligned = rearrange(aligned, "b t h w c -> b h w (t c)")
        x = self.fusion(aligned)
        for block in self.reconstruction:
            x = block(x)
        self.sow("intermediates", "recon", x)
        for upconv in (self.upconv1, self.upconv2):
            x = leaky_relu(pixel_shuffle(upconv(x)))
        return self.conv_last(leaky_relu(self.conv_hr(x)))

    def _report(self, name: str, value: Array) -> None:
        start = jnp.zeros(())
        self.sow("diagnostics", name, value, init_fn=lambda: start, reduce_fn=lambda _, x: x)


class PreDeblurNet(nn.Module):
    """PreDeblur with a tail of its own: a single-image network to train that part with first.

    Ours: of the authors' it is known only that such a network was trained (PreDeblur and an output
    convolution). Call with video, float [b, t, h, w, 3] RGB in [0, 1]; h and w must be multiples of
    4, or 16 with `hr_in`. Returns float32 [b, t, 4h, 4w, 3], or [b, t, h, w, 3] with `hr_in`, each
    frame on its own. Fields as EDVR's; its parameters below "predeblur" are EDVR's.
    """

    num_feat: int = 128
    hr_in: bool = False
    remat: bool = False
    dtype: Dtype = jnp.float32

    time_multiple = 1
    window = None  # as many frames out as in
    centre = 0
    border = None
    takes_noise_level = False
    compute_fields = ("remat", "dtype")

    @nn.nowrap
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Returns none: recipes treat all parameters alike."""
        return ()

    @nn.nowrap
    def working_memory(self, call: Size) -> int:
        """Estimates the bytes that a clip of (frames, height, width) takes."""
        return memory.of_clip(self, call, self.num_feat)

    @nn.nowrap
    def example_size(self) -> Size:
        """Returns one frame of the smallest size."""
        return 1, self.size_multiple, self.size_multiple

    scale = EDVR.scale
    size_multiple = EDVR.size_multiple
    pad_multiple = EDVR.pad_multiple

    def setup(self):
        self.predeblur = PreDeblur(self.num_feat, self.hr_in, self.dtype)
        self.conv_last = Conv(4 * 4 * 3, random_bias=True, dtype=self.dtype)

    def __call__(self, video: Array) -> Array:
        h, w, channels = video.shape[2:]
        if h % self.size_multiple or w % self.size_multiple or channels != 3:
            raise UserError(
                f"the frames are {h}x{w}x{channels}; with hr_in={self.hr_in} height and width must "
                f"be multiples of {self.size_multiple}, and channels 3 (RGB). Use "
                "rvrt_jax.restore, which pads."
            )
        frames = jnp.moveaxis(video.astype(jnp.float32), 1, 0)
        return jnp.moveaxis(map_scan(self, PreDeblurNet._sharpen, frames, remat=self.remat), 0, 1)

    def _sharpen(self, frames: Array) -> Array:
        residual = pixel_shuffle(self.conv_last(self.predeblur(frames)), 4).astype(jnp.float32)
        return residual + (frames if self.hr_in else enlarge(frames, 4))
