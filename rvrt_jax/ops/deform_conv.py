"""Modulated deformable convolution: every tap of the kernel reads at a place of its own.

Source: Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019. Layout of
both implementations: x [h, w, c]; offsets [h, w, g, k, 2], the displacement (y, x) in pixels that
an output pixel adds to tap k (row-major) of the g-th part of x's channels; mask [h, w, g, k], what
the sampled value is multiplied by; kernel [kh, kw, c, out] of odd height and width, whose middle
tap reads at the output pixel. A sample reads zeros outside x, neighbour by neighbour.

At a coordinate of -1 or less, or of the size or more, offsets have no derivative, as in the CUDA
kernels that the published networks were trained with (`ops.sample.corners`). torchvision gives a
one-sided slope at exactly -1 instead, which is where every border tap lies at initialisation.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array

from rvrt_jax.ops import neighbours, platforms
from rvrt_jax.ops.neighbours import Samples, fetch, shares, slopes
from rvrt_jax.ops.precision import precision_of
from rvrt_jax.ops.sample import (
    bilinear_sample,
    corners,
    pad_corners,
    pixel_grid,
    sample_rows,
    sample_rows_backward,
)


class _Spec(NamedTuple):
    """Height and width of x and of the kernel, and whether to sample all taps at once."""

    height: int
    width: int
    kernel: tuple[int, int]
    everywhere_at_once: bool = False  # or on GPUs alone


def deform_conv_plain(x: Array, offsets: Array, mask: Array, kernel: Array) -> Array:
    """Samples all taps at once, then multiplies by the kernel: the readable definition.

    Shapes as in the module's docstring. Returns [h, w, out] in x.dtype, without a bias. Needs
    memory for kh * kw copies of x.
    """
    spec = _spec(x, offsets, mask, kernel)
    places = _grid(spec)[:, :, None] + offsets.astype(jnp.float32)
    parts = rearrange(x, "h w (g r) -> g h w r", g=offsets.shape[2])
    sampled = jax.vmap(bilinear_sample, (0, 2), 2)(parts, places)  # [oh, ow, g, k, r]
    sampled = rearrange(sampled * mask[..., None], "y x g k r -> y x k (g r)")
    weights = rearrange(kernel, "i j r o -> (i j) r o")
    return _einsum("yxkr,kro->yxo", sampled, weights).astype(x.dtype)


def deform_conv_streamed(
    x: Array, offsets: Array, mask: Array, kernel: Array, *, everywhere_at_once: bool = False
) -> Array:
    """Goes over the taps one at a time, adding up their products: same values, little memory.

    The backward pass goes over them once more and samples again, so nothing is kept per tap. GPUs,
    and with `everywhere_at_once` all platforms, sample all taps at once and multiply once.
    """
    spec = _spec(x, offsets, mask, kernel)._replace(everywhere_at_once=everywhere_at_once)
    offsets = rearrange(offsets.astype(jnp.float32), "y x g k d -> k (y x) g d")
    places = rearrange(_grid(spec), "y x k d -> k (y x) 1 d") + offsets
    mask = rearrange(mask.astype(x.dtype), "y x g k -> k (y x) g")
    weights = rearrange(kernel.astype(x.dtype), "i j r o -> (i j) r o")
    # A pixel's parts are rows of their own, side by side, so that what is fetched for all parts of
    # a pixel lies as the matrix product wants it.
    rows = rearrange(pad_corners(x), "n (g r) -> (n g) r", g=mask.shape[2])
    out = cast(Array, _convolve(rows, places, mask, weights, spec))
    return rearrange(out, "(y x) o -> y x o", y=spec.height).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _convolve(rows: Array, places: Array, mask: Array, weights: Array, spec: _Spec) -> Array:
    """The streamed convolution on arrays already laid out.

    rows: [(h+2)(w+2)g, r]. places: [k, p, g, 2]. mask: [k, p, g]. weights: [k, c, o].
    Returns float32 [p, o].
    """
    return _forward(rows, places, mask, weights, spec)[0]


def _forward(rows: Array, places: Array, mask: Array, weights: Array, spec: _Spec):
    arrays = rows, places, mask, weights
    return _by_platform(_forward_at_once, _forward_streamed, spec, *arrays), arrays


def _backward(spec: _Spec, residuals: tuple[Array, ...], d_out: Array):
    return _by_platform(_backward_at_once, _backward_streamed, spec, *residuals, d_out)


_convolve.defvjp(_forward, _backward)


def _by_platform(at_once: Callable, streamed: Callable, spec: _Spec, *arrays: Array):
    """Computes by `at_once` where the program runs on a GPU or `spec` asks for it."""
    at_once, streamed = (functools.partial(f, spec=spec) for f in (at_once, streamed))
    if spec.everywhere_at_once:
        return at_once(*arrays)
    return platforms.choose(*arrays, cuda=at_once, rocm=at_once, default=streamed)


def _forward_at_once(rows: Array, places: Array, mask: Array, weights: Array, *, spec: _Spec):
    """Samples all taps in one kernel and multiplies once; a tap at a time is slow on GPUs."""
    at, mask = _pixels_first(places, mask, spec)
    return _einsum("pkr,kro->po", _masked(rows, at, mask), weights)


def _backward_at_once(
    rows: Array, places: Array, mask: Array, weights: Array, d_out: Array, *, spec: _Spec
):
    at, pixel_mask = _pixels_first(places, mask, spec)
    d_out = d_out.astype(rows.dtype)
    d_weights = _einsum("pkr,po->kro", _masked(rows, at, pixel_mask), d_out)
    d_masked = _einsum("po,kro->pkr", d_out, weights).reshape(*pixel_mask.shape, -1)
    products = (d_masked[None] * neighbours.rows(rows, at)).sum(-1)  # small: [4, p, k, g]
    d_mask = (shares(at) * products).sum(0)
    d_places = slopes(at, pixel_mask[None] * products)
    updates = (shares(at) * pixel_mask[None])[..., None] * d_masked[None]
    d_rows = neighbours.scatter(rows.shape, at, updates)
    d_places, d_mask = d_places.swapaxes(0, 1), d_mask.swapaxes(0, 1)
    return _typed((d_rows, d_places, d_mask, d_weights), (rows, places, mask, weights))


def _pixels_first(places: Array, mask: Array, spec: _Spec) -> tuple[Samples, Array]:
    """Returns where samples lie in `rows`, and the float32 mask, [p, k, g] each."""
    parts = places.shape[2]
    index, inside, fy, fx = corners(places.swapaxes(0, 1), spec.height, spec.width)
    index = index * parts + jnp.arange(parts)[None, None]
    at = Samples(index, inside, fy, fx, right=parts, down=parts * (spec.width + 2))
    return at, mask.swapaxes(0, 1).astype(jnp.float32)


def _masked(rows: Array, at: Samples, mask: Array) -> Array:
    """Returns all samples times their masks, [p, k, c] in rows.dtype."""
    masked = (fetch(rows, at) * mask[..., None]).astype(rows.dtype)
    return masked.reshape(*masked.shape[:2], -1)


def _typed(gradients: tuple[Array, ...], like: tuple[Array, ...]) -> tuple[Array, ...]:
    """Returns gradients in the types of what they belong to."""
    return tuple(d.astype(x.dtype) for d, x in zip(gradients, like, strict=True))


def _forward_streamed(rows: Array, places: Array, mask: Array, weights: Array, *, spec: _Spec):
    def step(total: Array, tap: tuple[Array, Array, Array]):
        place, mask, weights = tap
        sampled = _sample(rows, place, spec) * mask[..., None]
        return total + _product(_written(sampled.reshape(len(place), -1)), weights), None

    start = jnp.zeros((places.shape[1], weights.shape[-1]), jnp.float32)
    return jax.lax.scan(step, start, (places, mask, weights))[0]


def _backward_streamed(
    rows: Array, places: Array, mask: Array, weights: Array, d_out: Array, *, spec: _Spec
):
    def step(d_rows: Array, tap: tuple[Array, Array, Array]):
        place, mask, weights = tap
        sampled = _written(_sample(rows, place, spec))
        masked = _written((sampled * mask[..., None]).reshape(len(place), -1))
        d_masked, d_weights = jax.vjp(_product, masked, weights)[1](d_out)
        d_masked = d_masked.reshape(sampled.shape)
        d_mask = (d_masked * sampled).sum(-1)
        d_sampled = (d_masked * mask[..., None]).reshape(-1, rows.shape[1])
        parts = place.shape[1]
        d_rows, d_place = sample_rows_backward(
            rows, _at(place, spec), d_sampled, d_rows, right=parts, down=parts * (spec.width + 2)
        )
        return d_rows, (d_place.reshape(place.shape), d_mask, d_weights)

    start = jnp.zeros(rows.shape, jnp.float32)
    d_rows, (d_places, d_mask, d_weights) = jax.lax.scan(step, start, (places, mask, weights))
    return _typed((d_rows, d_places, d_mask, d_weights), (rows, places, mask, weights))


def _sample(rows: Array, place: Array, spec: _Spec) -> Array:
    """Samples rows [., r] at [p, g, 2]: [p, g, r]."""
    parts = place.shape[1]
    index, _, fy, fx = _at(place, spec)
    sampled = sample_rows(rows, index, fy, fx, right=parts, down=parts * (spec.width + 2))
    return sampled.reshape(*place.shape[:2], -1)


def _at(place: Array, spec: _Spec) -> tuple[Array, Array, Array, Array]:
    """Returns what `corners` says of [p, g, 2], flat, counting each pixel's g rows."""
    parts = place.shape[1]
    index, inside, fy, fx = corners(place, spec.height, spec.width)
    index = index * parts + jnp.arange(parts)[None]
    return index.ravel(), inside.ravel(), fy.ravel(), fx.ravel()


def _written(x: Array) -> Array:
    """Keeps XLA from computing `x` again inside each operation, or each column, that reads it.

    With it before the product the forward pass took 0.10 s instead of 0.25 on 2 cores (64 features,
    64x64).
    """
    return jax.lax.optimization_barrier(x)


def _product(masked: Array, weights: Array) -> Array:
    """Multiplies [p, c] by the weights of a tap, [c, o]: float32 [p, o]."""
    return _einsum("pr,ro->po", masked, weights)


def _einsum(pattern: str, x: Array, y: Array) -> Array:
    """Returns products summed in float32, whatever the type of the factors."""
    precision = precision_of(x.dtype)
    return jnp.einsum(pattern, x, y, preferred_element_type=jnp.float32, precision=precision)


def _grid(spec: _Spec) -> Array:
    """Returns where the taps would read without offsets, float32 [h, w, k, 2], (y, x)."""
    middle = jnp.array([[[[taps // 2 for taps in spec.kernel]]]], jnp.float32)
    taps = rearrange(pixel_grid(*spec.kernel), "i j y -> 1 1 (i j) y") - middle
    return pixel_grid(spec.height, spec.width)[:, :, None] + taps


def _spec(x: Array, offsets: Array, mask: Array, kernel: Array) -> _Spec:
    """Asserts that the shapes belong together, which a network's own layers always do."""
    (h, w, channels), (kh, kw, width, _), parts = x.shape, kernel.shape, offsets.shape[2]
    assert kh % 2 == kw % 2 == 1, kernel.shape
    assert offsets.shape == (h, w, parts, kh * kw, 2), (offsets.shape, x.shape, kernel.shape)
    assert mask.shape == offsets.shape[:-1], (mask.shape, offsets.shape)
    assert channels == width and channels % parts == 0, (channels, kernel.shape, parts)
    return _Spec(h, w, (kh, kw))


deform_conv_at_once = functools.partial(deform_conv_streamed, everywhere_at_once=True)

DEFORM_CONV = {
    "plain": deform_conv_plain,
    "streamed": deform_conv_streamed,
    "at_once": deform_conv_at_once,
}
