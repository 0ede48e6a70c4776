"""The loops over clips: parameters cast once, and walks in either direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rvrt_jax.models import layers


class Walk(nn.Module):
    """A recurrence of one linear layer and a norm, whose loop is under test."""

    cast_once: bool = False
    reverse: bool = False
    constant: int = 0
    dtype: type = jnp.bfloat16

    def setup(self):
        self.linear = layers.Linear(5, dtype=self.dtype)
        self.norm = layers.layer_norm(None, self.dtype)

    def step(self, carry, x):
        carry = jnp.tanh(self.norm(self.linear(carry + x)))
        return carry, 2 * carry

    def __call__(self, x):
        prepared = None
        if self.cast_once and not self.is_initializing():
            prepared = layers.prepare({"params": self.variables["params"]}, self.dtype)
        options = {"reverse": self.reverse, "constant": self.constant, "prepared": prepared}
        start = jnp.zeros_like(x[0])
        return layers.scan(self, Walk.step, start, x, **options)[1].astype(jnp.float32)


def gradients(walk, x):
    params = Walk().init(jax.random.key(0), x)["params"]

    def loss(params, x):
        y = walk.apply({"params": params}, x)
        return (y**2 * jnp.arange(1.0, 1 + y.size).reshape(y.shape)).sum(), y

    (_, y), found = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    return y, found


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("constant", [0, 3, -2])
@pytest.mark.parametrize("reverse", [False, True])
def test_parameters_cast_once_give_the_same(dtype, constant, reverse):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, 3, 5)), dtype)
    options = {"reverse": reverse, "constant": constant, "dtype": dtype}
    y, found = gradients(Walk(cast_once=True, **options), x)
    expected_y, expected = gradients(Walk(**options), x)
    np.testing.assert_array_equal(y, expected_y)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(*(np.asarray(z, np.float32) for z in (a, b)), rtol=1e-2)
    assert {leaf.dtype for leaf in jax.tree.leaves(found[0])} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("value", [np.inf, np.nan, -2.5])
def test_parameters_are_cast_for_themselves_whatever_is_in_others(value):
    kernels = {name: {"kernel": jnp.full((3, 2), n + 1.5)} for n, name in enumerate("abc")}
    kernels["a"]["kernel"] = kernels["a"]["kernel"].at[0, 0].set(value)
    prepared = layers.prepare({"params": kernels}, jnp.bfloat16, exact=["c"])
    for name, dtype in (("a", jnp.bfloat16), ("b", jnp.bfloat16), ("c", jnp.float32)):
        found = prepared.cast["params"][name]["kernel"]
        assert found.dtype == dtype
        expected = kernels[name]["kernel"].astype(dtype)
        np.testing.assert_array_equal(*(np.asarray(x, np.float32) for x in (found, expected)))


@pytest.mark.parametrize("constant", [0, 3, -2])
def test_reverse_is_the_walk_over_the_turned_input(constant):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, 3, 5)), jnp.float32)
    walk = Walk(reverse=True, constant=constant, dtype=jnp.float32)
    turned = Walk(constant=constant, dtype=jnp.float32)
    params = walk.init(jax.random.key(0), x)

    def through(function):
        def loss(x):
            y = function(x)
            return (y**2 * jnp.arange(1.0, 8.0)[:, None, None]).sum(), y

        (_, y), d_x = jax.value_and_grad(loss, has_aux=True)(x)
        return y, d_x

    found = through(lambda x: walk.apply(params, x))
    expected = through(lambda x: turned.apply(params, x[::-1])[::-1])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    visited = np.abs(np.asarray(found[1][::-1])).sum((1, 2)) > 0
    still = {0: [], 3: [0, 1, 2], -2: [5, 6]}[constant]
    assert [i for i in range(7) if not visited[i]] == still
