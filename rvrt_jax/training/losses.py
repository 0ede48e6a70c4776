"""What training minimises: the Charbonnier distance of pixels and, if wanted, of frequencies."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rvrt_jax.training.settings import Settings

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def chosen(settings: Settings) -> Loss:
    """Returns the loss of a run, `loss(prediction, target)`, both [b, t, h, w, c]."""

    def loss(prediction: jax.Array, target: jax.Array) -> jax.Array:
        options = {"eps": settings.loss_eps, "reduction": settings.loss_reduction}
        value = charbonnier(prediction, target, **options)
        if settings.frequency_weight:
            value += settings.frequency_weight * frequency(prediction, target, **options)
        return value

    return loss


def charbonnier(
    prediction: jax.Array, target: jax.Array, *, eps: float = 1e-9, reduction: str = "mean"
) -> jax.Array:
    """Returns the mean of sqrt(d^2 + eps), or its sum over a clip, in float32.

    prediction, target: [b, ...]. The sum is averaged over the b clips, so that it does not depend
    on how many of them a device has at a time. EDVR's authors also added up the four of a worker:
    a constant factor, which does not change Adam's steps.
    """
    difference = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    distances = jnp.sqrt(difference**2 + eps)
    return jnp.mean(distances) if reduction == "mean" else jnp.sum(distances) / distances.shape[0]


def frequency(
    prediction: jax.Array, target: jax.Array, *, eps: float = 1e-9, reduction: str = "mean"
) -> jax.Array:
    """Returns the Charbonnier distance of the real parts of the spectra plus that of the imaginary.

    prediction, target: [..., h, w, c]; the spectrum is the discrete Fourier transform of each
    channel of each frame, divided by sqrt(h w) so that it is as large as the frame whatever the
    crop. Source: Tran et al., "VSRM", arXiv 2506.22762, which gives the two parts a weight of 0.02;
    the division is ours.
    """
    both = jnp.stack([prediction.astype(jnp.float32), target.astype(jnp.float32)])
    ours, theirs = jnp.fft.fft2(both, axes=(-3, -2), norm="ortho")
    options = {"eps": eps, "reduction": reduction}
    return charbonnier(ours.real, theirs.real, **options) + charbonnier(
        ours.imag, theirs.imag, **options
    )
