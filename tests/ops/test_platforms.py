"""One form of an operator is traced where the platform is known, all of them where it is not."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvrt_jax import models, parallel
from rvrt_jax.ops import platforms
from rvrt_jax.training import step
from rvrt_jax.training.settings import Settings


@pytest.fixture
def traced():
    return []


@pytest.fixture
def function(traced):
    def form(name, factor):
        def multiply(x):
            traced.append(name)
            return factor * x

        return multiply

    return jax.jit(
        lambda x: platforms.choose(
            x, cuda=form("cuda", 3.0), tpu=form("tpu", 5.0), default=form("default", 2.0)
        )
    )


def test_unknown_takes_the_form_of_where_it_runs(function, traced):
    with platforms.known_to_be(None):
        assert function(1.0) == 2
    assert {"cuda", "tpu", "default"} <= set(traced)


@pytest.mark.parametrize(
    ("platform", "form", "result"),
    [("cpu", "default", 2), ("cuda", "cuda", 3), ("rocm", "default", 2), ("tpu", "tpu", 5)],
)
def test_known_traces_one_form(function, traced, platform, form, result):
    with platforms.known_to_be(platform):
        assert platforms.known() == platform
        assert function(1.0) == result
    assert set(traced) == {form}


def test_a_compiled_function_is_traced_anew_for_another_platform(function):
    found = []
    for platform in ("tpu", "cuda", "tpu"):
        with platforms.known_to_be(platform):
            found.append(float(function(1.0)))
    assert found == [5, 3, 5]


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("cpu", "cpu", "cpu"),
        ("tpu", "PJRT C API\nTFRT TPU v4", "tpu"),
        ("gpu", "PJRT C API\ncuda 13000", "cuda"),
        ("gpu", "PJRT C API\nrocm 60300", "rocm"),
    ],
)
def test_names_are_those_of_lowering(name, version, expected):
    client = types.SimpleNamespace(platform_version=version)
    assert platforms.of(types.SimpleNamespace(platform=name, client=client)) == expected


def test_the_device_here():
    assert platforms.of(jax.devices()[0]) == "cpu"


def test_a_step_is_traced_for_its_devices(function, traced, monkeypatch):
    def one_device(state, batch):
        return state + function(batch["x"]), {}

    monkeypatch.setattr(step, "make", lambda *_, **__: one_device)
    batch = {"x": np.ones(jax.local_device_count(), np.float32)}
    program = step.programs(Settings(), models.build("rvrt"), [])(frozenset())
    with platforms.known_to_be(None):
        new, _ = program(jnp.zeros(1), parallel.split(batch))
    assert new == 2 and set(traced) == {"default"}


def test_a_gpus_gradient_asks_the_host_nothing():
    """The first clip has nothing to align. GPUs align it all the same: a choice would wait."""
    fields = {"embed_dims": (8, 8, 8), "num_blocks": (1, 1, 1), "depths": (1, 1, 1)}
    fields |= {"num_heads": (2, 2, 2), "deformable_groups": 2, "attention_heads": 2}
    net = models.build("rvrt", **fields, num_feat=4, offset_feat=4)
    video = jax.ShapeDtypeStruct((1, 4, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), video)["params"]

    def loss(params, video):
        return net.apply({"params": params}, video).sum()

    with platforms.known_to_be("cpu"):
        assert choices(jax.make_jaxpr(loss)(params, video).jaxpr) == 4  # one in each branch
    with platforms.known_to_be("cuda"):
        assert choices(jax.make_jaxpr(jax.grad(loss))(params, video).jaxpr) == 0


def choices(jaxpr):
    """Counts the operations that choose between programs."""
    count = 0
    for equation in jaxpr.eqns:
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(tuple(equation.params.values()))]
        count += equation.primitive.name == "cond"
        count += sum(choices(x) for x in inner if hasattr(x, "eqns"))
    return count
