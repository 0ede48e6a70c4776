"""The forms of window attention for GPUs, all but the kernel, and TPUs against the readable one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax.ops import platforms
from rvrt_jax.ops import window as win
from rvrt_jax.ops import window_attention as wa
from rvrt_jax.ops import window_attention_tpu as wa_tpu

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


@pytest.fixture(params=["gpu", "tpu"])
def kernel(request, monkeypatch):
    """Takes a platform's form on a CPU: interpreted, or with what cuDNN computes in its place."""
    calls = []

    def called(form):
        return lambda q, *arrays, **options: calls.append(q.shape) or form(q, *arrays, **options)

    def in_place_of_cudnn(q, k, v, bias, scale, implementation):
        q = q * (scale * q.shape[-1] ** 0.5)
        return wa.attend_plain(q[None], k[None], v[None], bias[0], None)[0]

    monkeypatch.setattr(jax.nn, "dot_product_attention", called(in_place_of_cudnn))
    interpreted = functools.partial(wa_tpu.attend, interpret=True)
    monkeypatch.setattr(wa_tpu, "attend", called(interpreted))
    gradients = functools.partial(wa_tpu.gradients, interpret=True)
    monkeypatch.setattr(wa_tpu, "gradients", gradients)

    def by_platform(cuda, tpu, default):
        def call(q, k, v, bias, sides, *more):
            form = {"gpu": cuda, "tpu": tpu}[request.param]
            return form(q, k, v, bias, sides, *more)

        return call

    monkeypatch.setattr(wa, "_by_platform", by_platform)
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
    more = 8 if any(shift) else 0  # cuDNN's channels that say what must not see each other
    ours = {(2 * 4, 32, HEADS * channels)}
    assert set(kernel) in ({(2 * 4, 32, HEADS, channels + more)}, ours)
    exact = [x.astype(jnp.float32) for x in arrays]
    (_, expected), expected_gradients = results(wa.attend_plain, exact)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)
    for found, right in zip(gradients, expected_gradients, strict=True):
        assert found.dtype == jnp.bfloat16
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


def test_float32_has_the_readable_form_but_on_cpus(kernel):
    q, k, v, bias = (x.astype(jnp.float32) for x in inputs(24))
    with platforms.known_to_be("cuda"):
        y = wa.attend(q, k, v, bias, None)
    assert kernel == []
    np.testing.assert_array_equal(y, wa.attend_plain(q, k, v, bias, None))


@pytest.mark.parametrize("shift", [(0, 0, 0), (0, 2, 2), (1, 0, 2)])
@pytest.mark.parametrize(("channels", "loud"), [(5, 1), (24, 1), (24, 8)])
def test_the_form_for_cpus_equals_the_readable_one(channels, loud, shift):
    q, *others = (x.astype(jnp.float32) for x in inputs(channels))
    arrays = [loud * q, *others]  # loud: one weight is nearly all
    sides = win.shift_sides(SIZE, WINDOW, shift) if any(shift) else None
    (cotangent,) = np.random.default_rng(1).standard_normal((1, *q.shape), np.float32)

    def results(form):
        y, pull = jax.vjp(lambda *arrays: form(*arrays, sides), *arrays)
        return y, *pull(cotangent)

    found = jax.jit(lambda: results(wa.attend))()
    expected = jax.jit(lambda: results(wa.attend_plain))()
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    for one, right in zip(found[1:], expected[1:], strict=True):
        assert np.linalg.norm(one - right) < 1e-5 * np.linalg.norm(right)


def test_the_form_for_cpus_keeps_what_lies_apart_apart():
    q, k, v, bias = (x.astype(jnp.float32) for x in inputs(24))
    sides = win.shift_sides(SIZE, WINDOW, (0, 2, 2))
    apart = (np.asarray(sides[-1]) != np.asarray(sides[-1, 0])).any(-1)
    d_v = jax.grad(lambda v: wa.attend(q, k, v, bias, sides)[:, -1, 0].sum())(v)
    assert np.abs(d_v[:, -1, ~apart]).min() > 0 and np.abs(d_v[:, -1, apart]).max() < 1e-30


@pytest.mark.parametrize(("channels", "tokens"), [(6, 32), (24, 35)])
def test_cudnn_takes_even_tokens_and_channels_by_eights(channels, tokens, monkeypatch):
    monkeypatch.setattr(wa, "_works", lambda *_: True)
    q = jax.ShapeDtypeStruct((1, 4, tokens, HEADS, channels), jnp.bfloat16)
    assert not wa._fits("cuda", q, None) and wa._fits("tpu", q, None)


def test_programs_to_keep_have_the_readable_form(kernel):
    arrays = inputs(24)
    with wa.plain_only():
        y = wa.attend(*arrays, None)
    assert kernel == []
    np.testing.assert_array_equal(y, wa.attend_plain(*arrays, None))
    wa.attend(*arrays, None)
    assert len(kernel) == 1


@pytest.mark.parametrize(
    ("platform", "name"), [("cuda", "cuDNN's"), ("tpu", "the TPU's")], ids=["cuda", "tpu"]
)
def test_a_kernel_that_does_not_compile_says_so_once(monkeypatch, caplog, platform, name):
    def broken(*arrays):
        raise NotImplementedError("no such device")

    monkeypatch.setattr(wa, "attend_cudnn", broken)
    monkeypatch.setattr(wa, "attend_tpu", broken)
    monkeypatch.setattr(jax, "eval_shape", lambda *arguments: None)
    monkeypatch.setattr(jax, "default_backend", lambda: wa.BACKENDS[platform])
    wa._works.cache_clear()
    assert not wa._works(platform, 16, 2, 24, 0) and not wa._works(platform, 16, 2, 24, 0)
    assert [r.message for r in caplog.records] == [
        f"Attention inside windows uses the plain form: {name} kernel does not compile"
        " (no such device)."
    ]
    wa._works.cache_clear()
