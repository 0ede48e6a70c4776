"""Two-dimensional convolution in the forms that each platform is good at.

XLA's CPU backend takes the gradient of a kernel by convolving with windows as large as the image,
one multiplication at a time: at 2 x 128 x 128 pixels and 24 channels that took 2.3 s inside a loop,
against some 10 ms for the convolution itself. On CPUs the gradients are therefore written as what
the backend is good at: a convolution for the input, matrix products over bands for the kernel.

TPUs' compiler searches long for the shapes of a convolution's blocks: half a minute for one of 7x7
in float32 with its gradients, and flow has 30 of them. There a loop over the kernel's rows, each a
matrix product, compiles in a fifth to a half of that, and the compiler expects it to be quicker.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from rvrt_jax.ops import platforms
from rvrt_jax.ops.precision import precision_of

Precision = str | None

BAND = 256  # pixels, about, whose surroundings a CPU has beside each other: up to some MB
MOST_BESIDE = 2**28  # bytes of columns beside each other, of which a few are there at once


def conv2d(
    x: Array, kernel: Array, *, stride: int = 1, groups: int = 1, precision: Precision = None
) -> Array:
    """Convolves [b, h, w, in] with [k, k, in / groups, out], zero padded by k // 2.

    precision: of float32 products, in the gradients too; None: as `precision_of` says.
    """
    if precision is None or x.dtype != jnp.float32:
        precision = precision_of(x.dtype)
    if groups == 1:
        return _plain_conv2d(x, kernel, stride, precision)
    return _convolve(x, kernel, stride, precision, groups)


def _convolve(x: Array, kernel: Array, stride: int, precision: Precision, groups: int = 1) -> Array:
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _plain_conv2d(x: Array, kernel: Array, stride: int, precision: Precision) -> Array:
    convolve = functools.partial(_convolve, stride=stride, precision=precision)
    if not _rows_pay(x, kernel, stride):
        return convolve(x, kernel)
    by_rows = functools.partial(_convolve_by_rows, precision=precision)
    return platforms.choose(x, kernel, tpu=by_rows, default=convolve)


def _forward(x: Array, kernel: Array, stride: int, precision: Precision):
    return _plain_conv2d(x, kernel, stride, precision), (x, kernel)


def _backward(stride: int, precision: Precision, residuals: tuple[Array, Array], d_out: Array):
    forms = {
        "cpu": functools.partial(_cpu_gradients, stride=stride, precision=precision),
        "default": functools.partial(_default_gradients, stride=stride, precision=precision),
    }
    if _rows_pay(*residuals, stride):
        forms["tpu"] = functools.partial(_gradients_by_rows, precision=precision)
    return platforms.choose(*residuals, d_out, **forms)


_plain_conv2d.defvjp(_forward, _backward)


def _default_gradients(
    x: Array, kernel: Array, d_out: Array, *, stride: int, precision: Precision
) -> tuple[Array, Array]:
    return jax.vjp(lambda x, kernel: _convolve(x, kernel, stride, precision), x, kernel)[1](d_out)


def _cpu_gradients(
    x: Array, kernel: Array, d_out: Array, *, stride: int, precision: Precision
) -> tuple[Array, Array]:
    # The barrier keeps XLA from folding the flip into a form of convolution it is slow at.
    flipped = jax.lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    # Zeros between the outputs, and after the last, give each the place in x that it was made at.
    gaps = [(0, (n - 1) % stride, stride - 1) for n in x.shape[1:3]]
    spread = jax.lax.pad(d_out, jnp.zeros((), d_out.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
    return (
        _convolve(spread, flipped, 1, precision),
        _kernel_gradient_by_bands(x, kernel, d_out, stride=stride, precision=precision),
    )


def _kernel_gradient_by_bands(
    x: Array, kernel: Array, d_out: Array, *, stride: int, precision: Precision
) -> Array:
    """Adds up, over bands of rows, products of what the taps see with `d_out`, in float32.

    What they see lies side by side for a band alone, which thus stays in the processor's cache. A
    product for each tap of the whole image took 1.5 to 3 times as long: its sum is long, and the
    image was cut and copied anew for each.
    """
    size, _, features, _ = kernel.shape
    b, h, w, _ = d_out.shape
    rows = min(h, max(1, BAND // w))
    bands = math.ceil(h / rows)
    missing = bands * rows - h
    pad, below = size // 2, size // 2 + missing * stride
    x = jnp.pad(x, ((0, 0), (pad, below), (pad, pad), (0, 0)))
    d_out = jnp.pad(d_out, ((0, 0), (0, missing), (0, 0), (0, 0)))
    seen_rows = (rows - 1) * stride + size
    across, down = (w - 1) * stride + 1, (rows - 1) * stride + 1

    def add(total: Array, band: Array) -> tuple[Array, None]:
        image, first = band // bands, band % bands * rows
        corner = image, first * stride, 0, 0
        seen = jax.lax.dynamic_slice(x, corner, (1, seen_rows, *x.shape[2:]))[0]
        seen = jnp.concatenate([seen[:, j : j + across : stride] for j in range(size)], -1)
        seen = jnp.concatenate([seen[i : i + down : stride] for i in range(size)], -1)
        d_band = jax.lax.dynamic_slice(d_out, (image, first, 0, 0), (1, rows, *d_out.shape[2:]))
        product = jnp.einsum(
            "po,pi->oi",
            d_band.reshape(rows * w, -1),
            seen.reshape(rows * w, -1),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        return total + product, None

    start = jnp.zeros((d_out.shape[-1], size * size * features), jnp.float32)
    total = jax.lax.scan(add, start, jnp.arange(b * bands))[0]
    return total.T.reshape(kernel.shape).astype(kernel.dtype)


def _rows_pay(x: Array, kernel: Array, stride: int) -> bool:
    """Returns whether a TPU takes a convolution by rows, whose columns take memory."""
    size, _, *features = kernel.shape
    beside = size * math.prod(x.shape[:3]) * max(features) * x.dtype.itemsize
    return stride == 1 and size > 1 and beside <= MOST_BESIDE


def _convolve_by_rows(x: Array, kernel: Array, *, precision: Precision) -> Array:
    """Convolves as `_convolve` with stride 1: a matrix product for each row of the kernel.

    Rows are added up in float32, whatever the type.
    """
    size = kernel.shape[0]
    beside = _columns_beside(x, size)

    def add(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        i, weights = row
        seen = jax.lax.dynamic_slice_in_dim(beside, i, x.shape[1], 1)
        weights = weights.reshape(beside.shape[-1], -1)
        product = jnp.einsum(
            "bhwi,io->bhwo", seen, weights, precision=precision, preferred_element_type=jnp.float32
        )
        return total + product, None

    start = jnp.zeros((*x.shape[:3], kernel.shape[-1]), jnp.float32)
    return jax.lax.scan(add, start, (jnp.arange(size), kernel))[0].astype(x.dtype)


def _gradients_by_rows(
    x: Array, kernel: Array, d_out: Array, *, precision: Precision
) -> tuple[Array, Array]:
    size = kernel.shape[0]
    beside = _columns_beside(x, size)

    def row(i: Array) -> Array:
        seen = jax.lax.dynamic_slice_in_dim(beside, i, x.shape[1], 1)
        return jnp.einsum("bhwi,bhwo->io", seen, d_out, precision=precision)

    d_kernel = jax.lax.map(row, jnp.arange(size)).reshape(kernel.shape)
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _convolve_by_rows(d_out, flipped, precision=precision), d_kernel


def _columns_beside(x: Array, size: int) -> Array:
    """Returns for each pixel what a row of the kernel sees: [b, h + size - 1, w, size * in]."""
    pad, w = size // 2, x.shape[2]
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return jnp.concatenate([padded[:, :, i : i + w] for i in range(size)], -1)
