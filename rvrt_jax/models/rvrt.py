"""RVRT: Recurrent Video Restoration Transformer with guided deformable attention.

Source: Liang et al., NeurIPS 2022, arXiv 2206.02146. Four recurrent branches walk over clips of N
frames; each aligns the previous clip's hidden state to the current clip with guided deformable
attention and refines it with Swin blocks. Features are [b, t, h, w, c]; flow is (dx, dy) in pixels.
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models import memory
from rvrt_jax.models.contract import ParameterGroup, Size, in_channels
from rvrt_jax.models.guided_attention import GuidedDeformAttn
from rvrt_jax.models.layers import (
    Conv,
    Dtype,
    Remat,
    from_clips,
    leaky_relu,
    map_scan,
    remat_choice,
    scan,
    to_clips,
)
from rvrt_jax.models.spynet import SpyNet, neighbour_flows
from rvrt_jax.models.swin import RstbWithInputConv
from rvrt_jax.ops.deform_attn import ATTENTION, Window2
from rvrt_jax.ops.resize import bicubic_quarter, pixel_shuffle, resize_bilinear
from rvrt_jax.ops.sample import compose_flows
from rvrt_jax.ops.window import Size3

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")

_DEBLUR = {"upscale": 1, "embed_dims": (192, 192, 192), "inputconv_groups": (1, 3, 3, 3, 3, 3)}
VARIANTS = {
    "rvrt_sr": {},
    "rvrt_deblur": _DEBLUR,
    "rvrt_denoise": _DEBLUR | {"inputconv_groups": (1, 3, 4, 6, 8, 4), "nonblind_denoising": True},
}


class Branch(nn.Module):
    """One recurrent branch: align, then refine, clip after clip in propagation order."""

    backbone: nn.Module
    align: nn.Module
    remat: Remat

    def __call__(self, earlier: Array, flows: Array, *, constant: int = 0) -> tuple[Array, Array]:
        """Runs over all clips.

        earlier: [k, b, n, h, w, j, c], the features of the shallow extractor and the branches so
        far. flows: [k - 1, b, i, s, h, w, 2], the guidance of the clips after the first. constant:
        as in `layers.scan`. Returns the hidden states [k, b, n, h, w, c] and the refined flows,
        shaped as `flows`.
        """
        previous = jnp.concatenate([earlier[:1], earlier[:-1]])[..., -1, :]
        flows = jnp.pad(flows, [(1, 0)] + [(0, 0)] * (flows.ndim - 1))
        start = jnp.zeros_like(previous[0])
        xs = jnp.arange(earlier.shape[0]) == 0, earlier, previous, flows
        _, (hidden, refined, residues) = scan(
            self, Branch.step, start, xs, remat=self.remat, constant=constant
        )
        self.sow("intermediates", "residue_lengths", residues[1:])
        return hidden, refined[1:]

    def step(self, hidden: Array, x: tuple[Array, Array, Array, Array]):
        """Aligns the hidden state to the next clip and refines it; the first clip has nothing to
        align."""
        is_first, earlier, previous, flows = x

        def align(branch: "Branch") -> tuple[Array, Array, Array]:
            return branch.align(earlier[..., -1, :], previous, hidden, flows)

        def nothing(branch: "Branch") -> tuple[Array, Array, Array]:
            return jnp.zeros_like(hidden), jnp.zeros_like(flows), jnp.zeros(2)

        # One program for all clips halves the memory of short videos; `init` needs the alignment.
        found = align(self) if self.is_initializing() else nn.cond(is_first, nothing, align, self)
        aligned, refined, residues = found
        hidden = self.refine(earlier, aligned)
        return hidden, (hidden, refined, residues)

    def refine(self, earlier: Array, aligned: Array) -> Array:
        """`aligned + backbone(everything known about the clip)`."""
        known = rearrange(earlier, "b n h w j c -> b n h w (j c)")
        return aligned + self.backbone(jnp.concatenate([known, aligned], axis=-1))


class Upsampler(nn.Module):
    """The tail: 1x1 convolution, two pixel shuffles, two convolutions to RGB.

    x: [b, t, h, w, c]. Returns [b, t, 4h, 4w, 3].
    """

    features: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        x = leaky_relu(conv(self.features, kernel=1, name="conv_in")(x))
        for i in range(2):
            x = leaky_relu(pixel_shuffle(conv(4 * self.features, name=f"conv_up_{i}")(x)))
        x = conv(self.features, name="conv_hr")(x)
        return conv(3, name="conv_out")(x)


class RVRT(nn.Module):
    """The whole network, exactly as published; see the module's docstring.

    Call with video, float [b, t, h, w, c] in [0, 1]: c = 3 (RGB), or 4 with `nonblind_denoising`,
    the fourth being sigma / 255. t must be a multiple of `clip_size`, and h and w of 4 when
    `upscale` is 1. Returns float32 [b, t, upscale * h, upscale * w, 3], not clipped.
    `backward_frames`, a multiple of `clip_size`: as `models.contract` says.

    `clip_size` N: frames of a clip; 1 is a purely recurrent model, N = t has one clip and no
    alignment. `embed_dims`, `num_blocks`, `depths`, `num_heads`: of extraction, branches and
    reconstruction. `inputconv_groups`: of extraction, the four branches and reconstruction.
    `num_feat`, `offset_feat`: widths of the upsampling tail and of the convolutions that predict
    the sampling offsets, 64 in every published size. `attention`: "streamed" (default; on GPUs all
    samples at once), "at_once" (so everywhere), or "plain", the readable definition.
    `remat`: recompute each clip's step in the backward pass instead of keeping its intermediate
    values, but for what `remat_policy` keeps ("nothing", or "dots": the results of matrix
    products). `dtype`: of the matrix products; flow, sampling positions, softmax, norm statistics
    and the final sum are float32 always.
    """

    upscale: int = 4
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
        return 4 // self.upscale

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
        return memory.of_clip(self, call, max(self.embed_dims))

    @nn.nowrap
    def example_size(self) -> Size:
        """Returns one clip of the smallest frames."""
        return self.clip_size, self.size_multiple, self.size_multiple

    def setup(self):
        if self.upscale not in (1, 4):
            raise UserError(f"upscale is {self.upscale}; RVRT has 4 (super-resolution) or 1.")
        if self.attention not in ATTENTION:
            raise UserError(f"attention is {self.attention!r}; choose from {sorted(ATTENTION)}.")
        extract, branch, reconstruct = range(3)
        frame_window = (1, *self.window_size[1:])
        if self.upscale == 1:
            conv = functools.partial(Conv, self.embed_dims[0], stride=2, dtype=self.dtype)
            self.downsample_0, self.downsample_1 = conv(), conv()
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
        self.upsampler = Upsampler(self.num_feat, self.dtype)

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
        clips = to_clips(video.astype(jnp.float32), n)
        early = len(clips) - backward_frames // n if backward_frames else 0  # clips
        features = [self._map(RVRT._shallow, clips, early)]
        flow_frames = video[..., :3].astype(jnp.float32)
        if self.upscale == 1:
            flow_frames = jax.vmap(jax.vmap(bicubic_quarter))(flow_frames)
        guidance = self._flows(flow_frames, n * early)
        for name in BRANCHES:
            direction = name[:-2]
            backward = direction == "backward"
            order = reverse_clips if backward else lambda x: x
            earlier = jnp.stack([order(x) for x in features], axis=-2)
            flows = guidance[direction]
            if name.endswith("_1"):
                flows = clip_guidance(flows, n)
            constant = -early if backward else early
            hidden, guidance[direction] = getattr(self, name)(earlier, flows, constant=constant)
            self.sow("intermediates", "guidance", {name: guidance[direction]})
            features.append(order(hidden))
        named = dict(zip(("shallow", *BRANCHES), features, strict=True))
        self.sow("intermediates", "features", named)
        known = jnp.concatenate(features, -1), clips
        return from_clips(self._map(RVRT._reconstruct, known, early))

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

    def _map(self, body, xs, early: int):
        return map_scan(self, body, xs, remat=self._remat, constant=early)

    @property
    def _remat(self) -> Remat:
        return remat_choice(self.remat, self.remat_policy)

    def _shallow(self, frames: Array) -> Array:
        x = frames.astype(self.dtype)
        if self.upscale == 1:
            x = leaky_relu(self.downsample_1(leaky_relu(self.downsample_0(x))))
        return self.extract(x)

    def _reconstruct(self, x: tuple[Array, Array]) -> Array:
        features, frames = x
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


def reverse_clips(x: Array) -> Array:
    """Turns [k, b, n, ...] round in time: the clips and the frames inside them."""
    return x[::-1, :, ::-1]


def clip_guidance(neighbours: Array, n: int) -> Array:
    """Composes flows between neighbours into each clip's flows to the previous clip.

    neighbours: [t - 1, b, h, w, 2] as `RVRT._flows` returns them. Returns, for target frame i and
    slot s, the flow to support frame (s + i) mod n of the previous clip, [k - 1, b, i, s, h, w, 2].
    f(i->j) = f(i->i-1) + warp(f(i-1->j), f(i->i-1)), RVRT section 3.3.
    """
    clips = (neighbours.shape[0] + 1) // n
    if clips == 1:
        return jnp.zeros((0, neighbours.shape[1], n, n, *neighbours.shape[2:]), jnp.float32)
    starts = jnp.arange(clips - 1)[:, None] * n
    pairs = neighbours[starts + jnp.arange(2 * n - 1)[None]]  # entry a - 1: from frame a to a - 1
    compose = jax.vmap(jax.vmap(compose_flows))
    to_frame: dict[int, Array] = {}
    targets = []
    for a in range(1, 2 * n):
        step = pairs[:, a - 1]
        to_frame = {j: compose(step, flow) for j, flow in to_frame.items()}
        if a - 1 < n:
            to_frame[a - 1] = step
        if a >= n:
            i = a - n
            targets.append(jnp.stack([to_frame[(s + i) % n] for s in range(n)], axis=2))
    return jnp.stack(targets, axis=2)
