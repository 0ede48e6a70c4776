"""One training step: loss, freezing, averages, skipping, and several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import standin

from rvrt_jax import optim, parallel, state, step
from rvrt_jax.errors import UserError

BATCH = {k: np.stack([standin.Noise(1).map(i)[k] for i in range(4)]) for k in ("lq", "gt")}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The tests below compile the same few programs over and over."""
    with standin.cached_programs(tmp_path_factory.mktemp("cache")) as environment:
        yield environment


def _params():
    params = jax.jit(standin.Net().init)(jax.random.key(0), BATCH["lq"])["params"]
    return {**params, "spynet": standin.flow_params()}


def _apply(params, video):
    return standin.Net().apply({"params": params}, video)


@jax.jit
def _gradient(params):
    return jax.grad(lambda p: step.charbonnier(_apply(p, BATCH["lq"]), BATCH["gt"]))(params)


def _train(params, batches, *, flow_frozen=False, ema_decay=None, accumulate=1, lr=1e-2):
    optimizer = optim.adam(flow_multiplier=0.25, flow_frozen=flow_frozen)
    train = parallel.data_parallel(
        step.make(
            _apply,
            optimizer,
            lambda _: jnp.asarray(lr),
            flow_frozen=flow_frozen,
            ema_decay=ema_decay,
            accumulate=accumulate,
            axis_name=parallel.AXIS,
        )
    )
    current = state.create(params, optimizer, ema=ema_decay is not None)
    current = jax.device_put(current, parallel.replicated())
    for batch in batches:
        current, metrics = train(current, parallel.split(batch))
    return current, {key: float(value) for key, value in metrics.items()}


def test_charbonnier_is_the_mean_of_the_rooted_squares():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 5, 7, 3)), rng.random((2, 3, 5, 7, 3))
    expected = np.mean(np.sqrt((a - b) ** 2 + 1e-9))
    assert float(step.charbonnier(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(expected, 1e-6)
    same = step.charbonnier(jnp.zeros((4, 4)), jnp.zeros((4, 4)))
    assert float(same) == pytest.approx(np.sqrt(1e-9), rel=1e-6)


def test_first_step_moves_every_parameter_by_its_rate():
    params = _params()
    current, metrics = _train(params, [BATCH], lr=1e-2)
    gradient = _gradient(params)
    for part, rate in (("conv_in", 1e-2), ("spynet", 0.25e-2)):
        moved = jax.tree.map(lambda a, b: a - b, current.params[part], params[part])
        # Adam's first direction is the gradient's sign, up to its eps of 1e-8.
        expected = jax.tree.map(lambda g, r=rate: -r * g / (jnp.abs(g) + 1e-8), gradient[part])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), moved, expected)
    assert metrics["grad_norm"] == pytest.approx(
        float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))), rel=1e-5
    )
    mse = np.mean((np.clip(jax.jit(_apply)(params, BATCH["lq"]), 0, 1) - BATCH["gt"]) ** 2)
    assert metrics["mse"] == pytest.approx(mse, rel=1e-5)


def test_a_frozen_flow_network_stays_and_costs_no_gradient():
    params = _params()
    current, metrics = _train(params, [BATCH] * 3, flow_frozen=True)
    jax.tree.map(np.testing.assert_array_equal, current.params["spynet"], params["spynet"])
    assert np.any(current.params["conv_in"]["kernel"] != params["conv_in"]["kernel"])
    # Nothing of the flow network's gradient is in the norm that is reported and clipped.
    first = _train(params, [BATCH], flow_frozen=True)[1]["grad_norm"]
    gradient = _gradient(params)
    rest = [g for k, part in gradient.items() if k != "spynet" for g in jax.tree.leaves(part)]
    assert first == pytest.approx(float(jnp.sqrt(sum(jnp.sum(g**2) for g in rest))), rel=1e-5)


def test_the_average_follows_the_parameters():
    params = _params()
    current, _ = _train(params, [BATCH], ema_decay=0.5)
    plain, _ = _train(params, [BATCH])
    # At step 0 the memory is (1 + 0) / (10 + 0).
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, params, plain.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), current.ema, expected)
    assert current.weights is current.ema
    assert plain.weights is plain.params


def test_accumulation_gives_the_step_of_the_whole_batch():
    params = _params()
    whole, a = _train(params, [BATCH] * 2)
    parts, b = _train(params, [BATCH] * 2, accumulate=2)
    assert b == pytest.approx(a, rel=1e-4)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), whole.params, parts.params
    )


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    params = _params()
    broken = {**BATCH, "lq": BATCH["lq"].copy()}
    broken["lq"][0, 0, 0, 0, 0] = np.nan
    good, _ = _train(params, [BATCH], ema_decay=0.5)
    skipped, metrics = _train(params, [BATCH, broken, broken], ema_decay=0.5)
    for field in ("params", "opt_state", "ema"):
        a, b = getattr(good, field), getattr(skipped, field)
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (int(skipped.step), metrics["skipped"], metrics["skipped_in_row"]) == (3, 2, 2)
    _, metrics = _train(params, [BATCH, broken, BATCH])
    assert (metrics["skipped"], metrics["skipped_in_row"]) == (1, 0)


WORKER = """
import json, sys
import jax, numpy as np
import test_train_step as t
params, metrics = t._train(t._params(), [t.BATCH] * 3, ema_decay=0.9)
leaves = [np.asarray(x) for x in jax.tree.leaves(params.params)]
np.savez(sys.argv[1], *leaves, metrics=json.dumps(metrics), devices=jax.device_count())
"""


def test_two_and_four_devices_do_what_one_does(tmp_path, cache):
    one, metrics = _train(_params(), [BATCH] * 3, ema_decay=0.9)
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    workers = {}
    for devices in (2, 4):
        environment = (
            os.environ
            | cache
            | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                "PYTHONPATH": os.pathsep.join(folders),
            }
        )
        command = [sys.executable, "-c", WORKER, str(tmp_path / f"{devices}.npz")]
        workers[devices] = subprocess.Popen(command, env=environment)
    for devices, worker in workers.items():
        assert worker.wait(120) == 0
        with np.load(tmp_path / f"{devices}.npz") as result:
            assert result["devices"] == devices
            assert json.loads(str(result["metrics"])) == pytest.approx(metrics, rel=1e-4)
            for i, leaf in enumerate(jax.tree.leaves(one.params)):
                # Sums in another order. (Adam hides a gradient N times too large; the norm above
                # shows it.)
                np.testing.assert_allclose(result[f"arr_{i}"], leaf, atol=2e-5)


def test_a_state_in_its_sharding_compiles_the_step_once(caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        _train(_params(), [BATCH] * 3)
    compiled = [r for r in caplog.records if r.getMessage().startswith("Compiling jit(_fun)")]
    assert len(compiled) == 1


def test_a_batch_that_the_devices_do_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    parallel.check_batch(16)
    parallel.check_batch(16, accumulate=2)
    with pytest.raises(
        UserError, match=r"config\.batch_size=12 .* 8 device.*--config\.batch_size=8"
    ):
        parallel.check_batch(12)
    with pytest.raises(UserError, match=r"config\.accumulate=4"):
        parallel.check_batch(16, accumulate=4)
