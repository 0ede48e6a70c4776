"""What the guided deformable attention of RVRT sees: flow, sampling positions, weights."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Params
from rvrt_jax.models.guided_attention import GuidedDeformAttn, clip_guidance
from rvrt_jax.models.rvrt import RVRT
from rvrt_jax.ops.deform_attn import tap_positions
from rvrt_jax.ops.sample import bilinear_sample_plain, pixel_grid

BRANCH = "forward_1"  # the first branch that goes forward in time


class Alignment(NamedTuple):
    """How the frames i of a clip gather from the frames of the clip before, in slots s.

    support: [i, s], which frame of the previous clip a slot samples. flow: [i, s, h, w, 2],
    (dx, dy) in pixels, from the optical flow alone. positions: [i, s, g, k, h, w, 2], (y, x) in
    pixels, where each group g of channels samples for tap k; half of the groups are keys, half
    values. weights: [i, s, k, heads, h, w], over s and k summing to 1. aligned: [i, h, w, c], the
    weighted values. All in the resolution of the features: smaller than the frames with upscale=1.
    """

    support: np.ndarray
    flow: np.ndarray
    positions: np.ndarray
    weights: np.ndarray
    aligned: np.ndarray


@functools.partial(jax.jit, static_argnums=0)
def _intermediates(model: RVRT, params: Params, video: Array) -> Any:
    _, state = model.apply({"params": params}, video, mutable=["intermediates"])
    return state["intermediates"]


def look_inside(model: RVRT, params: Params, video: np.ndarray, *, clip: int = 1) -> Alignment:
    """Runs RVRT and returns how its first forward branch aligns to a clip.

    video: float32 [t, h, w, c] in [0, 1], of a size that the raw network takes. clip: the number of
    the clip of `model.clip_size` frames, 1 or more. Raises UserError if there is no such clip, or
    none before it: with clip_size = t nothing is aligned.
    """
    clips = video.shape[0] // model.clip_size
    if not 1 <= clip < clips:
        raise UserError(
            f"clip is {clip}, but the video has {clips} clips of {model.clip_size} frames, and the "
            "first has none before it. Give 1 or more, and a video of at least two clips."
        )
    inside = _intermediates(model, params, jnp.asarray(video)[None])
    features = inside["features"][0]
    flows = clip_guidance(inside["flows_forward"][0], model.clip_size)[clip - 1]
    q, k = features["backward_1"][clip], features["backward_1"][clip - 1]
    v = features[BRANCH][clip - 1]
    align = GuidedDeformAttn(
        model.clip_size,
        model.deformable_groups,
        model.attention_heads,
        model.attention_window,
        model.max_residue_magnitude,
        model.offset_feat,
        model.attention,
        model.dtype,
    )
    seen: dict[str, Any] = {}

    def watch(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.method_name == "predict_residue" or context.module.name in ("q", "k", "v"):
            key = context.module.name if context.method_name == "__call__" else "residue"
            seen[key] = result[0]
        return result

    with nn.intercept_methods(watch):
        align.apply({"params": params[BRANCH]["align"]}, q, k, v, flows)
    offsets = seen["residue"] + rearrange(flows[0, ..., ::-1], "i s h w y -> i h w s 1 1 y")
    keys_values = jnp.concatenate([seen["k"], seen["v"]], axis=-1)
    return _attended(seen["q"], keys_values, offsets, flows[0], model)


def _attended(q, kv, offsets, flow, model: RVRT) -> Alignment:
    """Computes what `deform_attn_plain` does, and keeps what it looks at; shapes as there."""
    n, h, w, _ = q.shape
    taps = rearrange(tap_positions(model.attention_window), "k y -> 1 1 1 1 1 k y")
    grid = rearrange(pixel_grid(h, w), "h w y -> 1 h w 1 1 1 y")
    positions = rearrange(grid + taps + offsets, "i h w s g k y -> i s g k h w y")
    groups = positions.shape[2]
    support = (np.arange(n)[None, :] + np.arange(n)[:, None]) % n
    rows = rearrange(kv, "n h w (g r) -> n g h w r", g=groups)[support]
    sample = jax.vmap(jax.vmap(jax.vmap(jax.vmap(bilinear_sample_plain, (None, 0)))))
    sampled = rearrange(sample(rows, positions), "i s g k h w r -> i s k h w (g r)")
    keys, values = jnp.split(sampled, 2, axis=-1)
    heads = functools.partial(rearrange, pattern="... (a d) -> ... a d", a=model.attention_heads)
    q, keys, values = heads(q), heads(keys), heads(values)
    logits = jnp.einsum("ihwad,iskhwad->ihwask", q, keys) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=(-2, -1))
    aligned = jnp.einsum("ihwask,iskhwad->ihwad", weights, values)
    aligned = rearrange(aligned, "i h w a d -> i h w (a d)")
    weights = rearrange(weights, "i h w a s k -> i s k a h w")
    return Alignment(support, *map(np.asarray, (flow, positions, weights, aligned)))
