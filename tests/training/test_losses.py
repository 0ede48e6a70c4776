"""The losses, by their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax.training import losses
from rvrt_jax.training.settings import Settings


def _pair(*shape):
    rng = np.random.default_rng(0)
    return rng.random((2, *shape), np.float32)


def test_charbonnier_is_the_mean_of_the_rooted_squares():
    a, b = _pair(2, 3, 5, 7, 3)
    expected = np.mean(np.sqrt((a - b).astype(np.float64) ** 2 + 1e-9))
    assert float(losses.charbonnier(a, b)) == pytest.approx(expected, 1e-6)
    same = losses.charbonnier(jnp.zeros((4, 4)), jnp.zeros((4, 4)))
    assert float(same) == pytest.approx(np.sqrt(1e-9), rel=1e-6)


def test_the_sum_has_its_own_eps():
    a, b = _pair(2, 3, 5)
    expected = np.sum(np.sqrt((a - b) ** 2 + 1e-2)) / 2  # over two clips
    found = losses.charbonnier(a, b, eps=1e-2, reduction="sum")
    assert float(found) == pytest.approx(expected, rel=1e-6)
    halves = zip(jnp.split(a, 2), jnp.split(b, 2), strict=True)
    parts = [losses.charbonnier(*half, eps=1e-2, reduction="sum") for half in halves]
    assert np.mean(parts) == pytest.approx(expected, rel=1e-6)  # as devices and accumulation do


def _dft(frames):
    """The orthonormal transform of the two axes before the last, by its sum, in float64."""
    h, w = frames.shape[-3:-1]
    rows, columns = (
        np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n) for n in (h, w)
    )
    return np.einsum("yh,xw,...hwc->...yxc", rows, columns, frames.astype(np.float64))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_frequency_loss_is_charbonnier_of_real_and_imaginary_part(reduction):
    a, b = _pair(2, 3, 5, 6, 3)
    difference = _dft(a) - _dft(b)
    distances = np.sqrt(difference.real**2 + 1e-4) + np.sqrt(difference.imag**2 + 1e-4)
    expected = np.mean(distances) if reduction == "mean" else np.sum(distances) / 2
    found = losses.frequency(a, b, eps=1e-4, reduction=reduction)
    assert float(found) == pytest.approx(expected, rel=1e-5)  # of float32


def test_its_weight_adds_it_and_0_leaves_the_published_loss():
    a, b = _pair(1, 2, 4, 4, 3)
    plain = losses.charbonnier(a, b)
    assert losses.chosen(Settings())(a, b) == plain
    both = losses.chosen(Settings(frequency_weight=0.02))(a, b)
    expected = float(plain) + 0.02 * float(losses.frequency(a, b))
    assert float(both) == pytest.approx(expected, rel=1e-6)
