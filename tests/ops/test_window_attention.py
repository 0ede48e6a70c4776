"""The form of window attention for NVIDIA GPUs, all but its kernel, against the readable one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax.ops import window as win
from rvrt_jax.ops import window_attention as wa

SIZE, WINDOW = (2, 8, 8), (2, 4, 4)
HEADS = 3


def inputs(channels, b=2):
    tokens, windows = np.prod(WINDOW), np.prod(SIZE) // np.prod(WINDOW)
    rng = np.random.default_rng(0)
    shape = (b, windows, tokens, HEADS, channels)
    arrays = [rng.standard_normal(shape) for _ in "qkv"] + [
        rng.standard_normal((HEADS, tokens, tokens))
    ]
    return [jnp.asarray(x, jnp.bfloat16) for x in arrays]


@pytest.fixture
def kernel(monkeypatch):
    """Pretends that cuDNN is here; on a CPU the kernel's place is taken by what it computes."""
    monkeypatch.setattr(wa, "_kernel_works", lambda *_: True)
    calls = []
    fused = wa._attend_fused
    monkeypatch.setattr(wa, "_attend_fused", lambda *a: calls.append(a[0].shape) or fused(*a))
    monkeypatch.setattr(wa, "_attend_cudnn", wa._attend_default)  # traced even where it is not run
    return calls


@pytest.mark.parametrize("shift", [(0, 0, 0), (0, 2, 2), (1, 0, 2)])
@pytest.mark.parametrize("channels", [8, 24])
def test_equals_the_readable_form(kernel, channels, shift):
    arrays = inputs(channels)
    sides = win.shift_sides(SIZE, WINDOW, shift) if any(shift) else None

    def results(form, arrays):
        def loss(*arrays):
            y = form(*arrays, sides)
            return (y.astype(jnp.float32) ** 2).sum(), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(*arrays)

    (_, y), gradients = results(wa.attend, arrays)
    more = 8 if any(shift) else 0  # channels that say which tokens must not see each other
    assert set(kernel) == {(2 * 4, 32, HEADS, channels + more)}
    exact = [x.astype(jnp.float32) for x in arrays]
    (_, expected), expected_gradients = results(wa.attend_plain, exact)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)
    for found, right in zip(gradients, expected_gradients, strict=True):
        error = np.linalg.norm(found.astype(jnp.float32) - right)
        assert error < 0.02 * np.linalg.norm(right)


def test_what_lies_apart_has_no_influence(kernel):
    q, k, v, bias = inputs(24)
    sides = win.shift_sides(SIZE, WINDOW, (0, 2, 2))
    before = wa.attend(q, k, v, bias, sides)
    one = np.asarray(sides[-1, 0])
    apart = (np.asarray(sides[-1]) != one).any(-1)
    assert apart.any() and not apart.all()
    k = k.at[:, -1, apart].add(10)
    v = v.at[:, -1, apart].add(10)
    after = wa.attend(q, k, v, bias, sides)
    np.testing.assert_array_equal(before[:, -1, 0], after[:, -1, 0])


@pytest.mark.parametrize(("channels", "dtype"), [(6, jnp.bfloat16), (24, jnp.float32)])
def test_what_the_kernel_does_not_take_has_the_readable_form(kernel, channels, dtype):
    q, k, v, bias = (x.astype(dtype) for x in inputs(channels))
    y = wa.attend(q, k, v, bias, None)
    assert kernel == []
    np.testing.assert_array_equal(y, wa.attend_plain(q, k, v, bias, None))


def test_programs_to_keep_have_the_readable_form(kernel):
    arrays = inputs(24)
    with wa.plain_only():
        y = wa.attend(*arrays, None)
    assert kernel == []
    np.testing.assert_array_equal(y, wa.attend_plain(*arrays, None))
    wa.attend(*arrays, None)
    assert len(kernel) == 1


def test_a_kernel_that_does_not_compile_says_so_once(monkeypatch, caplog):
    def broken(*arrays, scale):
        raise NotImplementedError("no such GPU")

    monkeypatch.setattr(wa, "_attend_cudnn", broken)
    monkeypatch.setattr(jax, "eval_shape", lambda *arguments: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    wa._kernel_works.cache_clear()
    assert not wa._kernel_works(16, 2, 24) and not wa._kernel_works(16, 2, 24)
    assert [r.message for r in caplog.records] == [
        "Attention inside windows uses the plain form: cuDNN's kernel does not compile"
        " (no such GPU)."
    ]
    wa._kernel_works.cache_clear()
