"""RVRT: Recurrent Video Restoration Transformer with guided deformable attention.

Source: Liang et al., NeurIPS 2022, arXiv 2206.02146. Four recurrent branches walk over clips of N
frames; each aligns the previous clip's hidden state to the current clip with guided deformable
attention and refines it with Swin blocks. Features are [b, t, h, w, c]; flow is (dx, dy) in pixels.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models import beside, memory
from rvrt_jax.models.branch import Branch
from rvrt_jax.models.contract import ParameterGroup, Size, in_channels
from rvrt_jax.models.ffdnet import FFDNet
from rvrt_jax.models.guided_attention import LAST_OFFSETS, GuidedDeformAttn, clip_guidance
from rvrt_jax.models.layers import (
    Conv,
    Dtype,
    Prepared,
    Remat,
    from_clips,
    leaky_relu,
    map_scan,
    prepare,
    remat_choice,
    to_clips,
)
from rvrt_jax.models.spynet import SpyNet, neighbour_flows
from rvrt_jax.models.swin import RstbWithInputConv, position_biases
from rvrt_jax.ops.deform_attn import ATTENTION, Window2
from rvrt_jax.ops.resize import bicubic_shrink, pixel_shuffle, resize_bilinear
from rvrt_jax.ops.window import Size3

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")
SHALLOW = ("downsample_0", "downsample_1", "extract")
STRIDES = (2, 4)
RECONSTRUCT = ("reconstruct", "upsampler")
ENDS = ("extract", "reconstruct")  # they see one frame at a time

_DEBLUR = {"upscale": 1, "embed_dims": (192, 192, 192), "inputconv_groups": (1, 3, 3, 3, 3, 3)}
VARIANTS = {
    "rvrt_sr": {},
    "rvrt_deblur": _DEBLUR,
    "rvrt_denoise": _DEBLUR | {"inputconv_groups": (1, 3, 4, 6, 8, 4), "nonblind_denoising": True},
}


class Upsampler(nn.Module):
    """The tail: 1x1 convolution, pixel shuffles of 2, two convolutions to RGB.

    x: [b, t, h, w, c]. Returns [b, t, factor * h, factor * w, 3].
    """

    features: int = 64
    factor: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        x = leaky_relu(conv(self.features, kernel=1, name="conv_in")(x))
        for i in range(_halvings(self.factor)):
            x = leaky_relu(pixel_shuffle(conv(4 * self.features, name=f"conv_up_{i}")(x)))
        x = conv(self.features, name="conv_hr")(x)
        return conv(3, name="conv_out")(x)


class RVRT(nn.Module):
    """The whole network, as published unless a field of ours is set; see the module's docstring.

    Call with video, float [b, t, h, w, c] in [0, 1]: c = 3 (RGB), or 4 with `nonblind_denoising`,
    the fourth being sigma / 255. t must be a multiple of `clip_size`, and h and w of
    `feature_stride` when `upscale` is 1. Returns float32 [b, t, upscale * h, upscale * w, 3], not
    clipped. `backward_frames`, a multiple of `clip_size`: as `models.contract` says.

    `clip_size` N: frames of a clip; 1 is a purely recurrent model, N = t has one clip and no
    alignment. `embed_dims`, `num_blocks`, `depths`, `num_heads`: of extraction, branches and
    reconstruction. `inputconv_groups`: of extraction, the four branches and reconstruction.
    `feature_stride`: with `upscale` 1, how much smaller than the frames the features are each way:
    4 as published, or 2. `denoise_first`, with `nonblind_denoising`: FFDNet denoises each frame
    before, with weights that do not learn; the network corrects its frames, and sees the noisy ones
    beside them. `warped_neighbours`, with `upscale` 1: it also sees the flow to the neighbours, and
    how far these, warped by it, are from each frame. DVDnet (Tassano et al., ICIP 2019) denoises
    video in these steps. `along_motion`, instead: it corrects what a linear filter along the motion
    makes of each frame and its neighbours (`beside.along_motion`), and sees what the filter added.
    `num_feat`, `offset_feat`: widths of the upsampling tail and of the convolutions that predict
    the sampling offsets, 64 in every published size. `attention`: "streamed" (default; on GPUs all
    samples at once), "at_once" (so everywhere), or "plain", the readable definition.
    `remat`: recompute each clip's step in the backward pass instead of keeping its intermediate
    values, but for what `remat_policy` keeps ("nothing", or "dots": the results of matrix
    products). `dtype`: of the matrix products; flow, sampling positions, softmax, norm statistics
    and the final sum are float32 always.
    """

    upscale: int = 4
    feature_stride: int = 4
    clip_size: int = 2
    window_size: Size3 = (2, 8, 8)
    num_blocks: tuple[int, int, int] = (1, 2, 1)
    depths: tuple[int, int, int] = (2, 2, 2)
    embed_dims: tuple[int, int, int] = (144, 144, 144)
    num_heads: tuple[int, int, int] = (6, 6, 6)
    mlp_ratio: float = 2.0
    inputconv_groups: tuple[int, int, int, int, int, int] = (1, 1, 1, 1, 1, 1)
    max_residue_magnitude: float = 10.0
    deformable_groups: int = 12
    attention_heads: int = 12
    attention_window: Window2 = (3, 3)
    nonblind_denoising: bool = False
    denoise_first: bool = False
    warped_neighbours: bool = False
    along_motion: bool = False
    num_feat: int = 64
    offset_feat: int = 64
    attention: str = "streamed"
    remat: bool = False
    remat_policy: str = "nothing"
    dtype: Dtype = jnp.float32

    window = None  # as many frames out as in
    centre = 0
    border = None
    compute_fields = ("attention", "remat", "remat_policy", "dtype")

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.upscale

    @property
    def time_multiple(self) -> int:
        """What the number of frames must be a multiple of."""
        return self.clip_size

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        return self.feature_stride if self.upscale == 1 else 1

    @property
    def pad_multiple(self) -> int:
        """What the published whole-video inference pads height and width to, for every task."""
        return 8

    @property
    def takes_noise_level(self) -> bool:
        """Whether the input has a fourth channel, sigma / 255."""
        return self.nonblind_denoising

    @nn.nowrap
    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Returns the parts that recipes can treat apart."""
        return (ParameterGroup("flow", "spynet"),)

    @nn.nowrap
    def working_memory(self, call: Size) -> int:
        """Estimates the bytes that a clip of (frames, height, width) takes."""
        return memory.of_clip(self, call, max(self.embed_dims), stride=self.feature_stride)

    @nn.nowrap
    def example_size(self) -> Size:
        """Returns one clip of the smallest frames."""
        return self.clip_size, self.size_multiple, self.size_multiple

    def setup(self):
        if self.upscale not in (1, 4):
            raise UserError(f"upscale is {self.upscale}; RVRT has 4 (super-resolution) or 1.")
        if self.feature_stride not in STRIDES:
            raise UserError(f"feature_stride is {self.feature_stride}; RVRT has 2 or 4.")
        if self.attention not in ATTENTION:
            raise UserError(f"attention is {self.attention!r}; choose from {sorted(ATTENTION)}.")
        if (self.warped_neighbours or self.along_motion) and self.upscale == 4:
            raise UserError("warped_neighbours and along_motion are for an RVRT with upscale=1.")
        if self.warped_neighbours and self.along_motion:
            raise UserError("give warped_neighbours or along_motion, not both.")
        if self.denoise_first:
            if not self.nonblind_denoising:
                raise UserError("denoise_first needs nonblind_denoising: FFDNet takes the level.")
            self.image_denoiser = FFDNet(dtype=self.dtype)
        extract, branch, reconstruct = range(3)
        frame_window = (1, *self.window_size[1:])
        if self.upscale == 1:
            conv = functools.partial(Conv, self.embed_dims[0], stride=2, dtype=self.dtype)
            for i in range(_halvings(self.feature_stride)):
                setattr(self, SHALLOW[i], conv())
        self.spynet = SpyNet()
        self.extract = self._rstb(extract, frame_window, self.inputconv_groups[0])
        for i, name in enumerate(BRANCHES):
            backbone = self._rstb(branch, self.window_size, self.inputconv_groups[1 + i])
            align = GuidedDeformAttn(
                self.clip_size,
                self.deformable_groups,
                self.attention_heads,
                self.attention_window,
                self.max_residue_magnitude,
                self.offset_feat,
                self.attention,
                self.dtype,
            )
            setattr(self, name, Branch(backbone, align, self._remat))
        self.reconstruct = self._rstb(reconstruct, frame_window, self.inputconv_groups[5])
        factor = self.upscale * self.size_multiple  # from the features' size to the result's
        self.upsampler = Upsampler(self.num_feat, factor, self.dtype)

    def _rstb(self, part: int, window: Size3, groups: int) -> RstbWithInputConv:
        return RstbWithInputConv(
            self.embed_dims[part],
            window,
            self.num_blocks[part],
            self.depths[part],
            self.num_heads[part],
            self.mlp_ratio,
            groups,
            self.dtype,
        )

    def __call__(self, video: Array, *, backward_frames: int = 0) -> Array:
        self._check(video)
        n = self.clip_size
        early = (video.shape[1] - backward_frames) // n if backward_frames else 0  # clips
        video = video.astype(jnp.float32)
        if self.denoise_first:
            noisy, video = video[..., :3], self._denoised(video)
        flow_frames = video[..., :3]
        if self.upscale == 1:
            shrink = functools.partial(bicubic_shrink, factor=self.feature_stride)
            flow_frames = jax.vmap(jax.vmap(shrink))(flow_frames)
        guidance = self._flows(flow_frames, n * early)
        if self.warped_neighbours or self.along_motion:
            look = beside.neighbours if self.warped_neighbours else beside.along_motion
            frames, level = video[..., :3], video[..., 3:]
            differences, flows = look(frames, guidance, self.feature_stride)
            if self.along_motion:
                frames = frames + differences[..., :3]
            video = jnp.concatenate([frames, level, differences, flows], axis=-1)
        if self.denoise_first:
            video = jnp.concatenate([video, noisy], axis=-1)
        clips = to_clips(video, n)
        prepared = self._prepare()
        features = [self._map(RVRT._shallow, clips, early, prepared, SHALLOW)]
        for name in BRANCHES:
            direction = name[:-2]
            flows = guidance[direction]
            if name.endswith("_1"):
                flows = clip_guidance(flows, n)
            hidden, guidance[direction] = getattr(self, name)(
                features,
                flows,
                backward=direction == "backward",
                constant=-early if direction == "backward" else early,
                prepared=prepared and prepared.of(name),
            )
            self.sow("intermediates", "guidance", {name: guidance[direction]})
            features.append(hidden)
        named = dict(zip(("shallow", *BRANCHES), features, strict=True))
        self.sow("intermediates", "features", named)
        known = features, clips
        return from_clips(self._map(RVRT._reconstruct, known, early, prepared, RECONSTRUCT))

    def _check(self, video: Array) -> None:
        _, t, h, w, c = video.shape
        if t % self.clip_size:
            raise UserError(
                f"the clip has {t} frames; RVRT needs a multiple of clip_size={self.clip_size}. "
                f"Drop {t % self.clip_size} frames, or use rvrt_jax.restore, which pads."
            )
        if h % self.size_multiple or w % self.size_multiple:
            raise UserError(
                f"the frames are {h}x{w}; with upscale={self.upscale} height and width must be "
                f"multiples of {self.size_multiple}. Use rvrt_jax.restore, which pads."
            )
        if c != in_channels(self):
            raise UserError(f"the video has {c} channels; this model takes {in_channels(self)}.")

    def _denoised(self, video: Array) -> Array:
        """Returns FFDNet's frames and the noise level, [b, t, h, w, 4]."""
        frames = jnp.moveaxis(video, 1, 0)  # one at a time, as memory must not grow with the clip
        clean = jnp.moveaxis(map_scan(self, RVRT._denoised_frame, frames), 0, 1)
        return jnp.concatenate([jax.lax.stop_gradient(clean), video[..., 3:]], axis=-1)

    def _denoised_frame(self, frame: Array) -> Array:
        return jnp.clip(self.image_denoiser(frame[:, None])[:, 0], 0.0, 1.0)

    def _prepare(self) -> Prepared | None:
        """Returns the variables as the loops take them; None where nothing is to be cast."""
        if self.is_initializing() or self.dtype == jnp.float32:
            return None
        params = self.variables["params"]
        frame_window = (1, *self.window_size[1:])
        biases = {
            name: position_biases(params[name], window)
            for names, window in ((BRANCHES, self.window_size), (ENDS, frame_window))
            for name in names
        }
        variables = {"params": params, "biases": biases}
        return prepare(variables, self.dtype, exact=[LAST_OFFSETS])

    def _map(self, body, xs, early: int, prepared: Prepared | None, parts: tuple[str, ...]):
        """Applies `body`, which uses the named submodules, to each clip."""
        prepared = prepared and prepared.only(*parts)
        return map_scan(self, body, xs, remat=self._remat, constant=early, prepared=prepared)

    @property
    def _remat(self) -> Remat:
        return remat_choice(self.remat, self.remat_policy)

    def _shallow(self, frames: Array) -> Array:
        x = frames.astype(self.dtype)
        if self.upscale == 1:
            for i in range(_halvings(self.feature_stride)):
                x = leaky_relu(getattr(self, SHALLOW[i])(x))
        return self.extract(x)

    def _reconstruct(self, x: tuple[list[Array], Array]) -> Array:
        features, frames = x
        features = jnp.concatenate(features, axis=-1)
        residual = self.upsampler(self.reconstruct(features)).astype(jnp.float32)
        frames = frames[..., :3]
        if self.upscale == 4:
            h, w = frames.shape[2:4]
            enlarge = functools.partial(resize_bilinear, size=(4 * h, 4 * w))
            frames = jax.vmap(jax.vmap(enlarge))(frames)
        return residual + frames

    def _flows(self, frames: Array, early: int) -> dict[str, Array]:
        """Returns each direction's flows between neighbours, in its order of propagation.

        frames: [b, t, h, w, 3]. early: so many first frames are constants. Returns [t - 1, b, h, w,
        2]: entry m is the flow from the (m+1)-th frame visited to the m-th.
        """
        frames = jnp.moveaxis(frames, 1, 0)
        to_next, to_previous = neighbour_flows(
            self.spynet, frames, remat=self._remat, constant=early
        )
        self.sow("intermediates", "flows_backward", to_next)
        self.sow("intermediates", "flows_forward", to_previous)
        return {"backward": to_next[::-1], "forward": to_previous}


def _halvings(factor: int) -> int:
    return factor.bit_length() - 1
