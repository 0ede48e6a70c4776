"""One training step: loss, freezing, averages, skipping, and several devices."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import standin, steps, toy
from helpers.runs import run
from helpers.steps import BATCH

from rvrt_jax import models, parallel
from rvrt_jax.errors import UserError
from rvrt_jax.models import layers, rvrt
from rvrt_jax.training import loop, losses, optim, state, step
from rvrt_jax.training.settings import Settings

pytestmark = pytest.mark.usefixtures("program_cache")


@jax.jit
def _gradient(params):
    return jax.grad(lambda p: losses.charbonnier(steps.apply(p, BATCH["lq"]), BATCH["gt"]))(params)


def test_levels_become_floats_as_numpy_divides_them():
    levels = np.arange(256, dtype=np.uint8)
    expected = levels / np.float32(255)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(step.to_unit(jnp.asarray(levels)), expected)
    np.testing.assert_array_equal(jax.jit(step.to_unit)(levels), expected)
    # One rounding, as of a fused product and sum, is no other.
    exact = levels / 256 + levels * np.float64(np.float32(1 / 255 - 1 / 256))
    np.testing.assert_array_equal(exact.astype(np.float32), expected)
    np.testing.assert_array_equal(step.to_unit(expected), expected)


def test_first_step_moves_every_parameter_by_its_rate():
    params = steps.params()
    current, metrics = steps.train(params, [BATCH], lr=1e-2)
    gradient = _gradient(params)
    for part, rate in (("conv_in", 1e-2), ("spynet", 0.25e-2)):
        moved = jax.tree.map(lambda a, b: a - b, current.params[part], params[part])
        # Adam's first direction is the gradient's sign, up to its eps of 1e-8.
        expected = jax.tree.map(lambda g, r=rate: -r * g / (jnp.abs(g) + 1e-8), gradient[part])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), moved, expected)
    assert metrics["grad_norm"] == pytest.approx(
        float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))), rel=1e-5
    )
    for name, chosen in (("flow", {"spynet"}), ("rest", set(gradient) - {"spynet"})):
        squares = sum(jnp.sum(g**2) for k in chosen for g in jax.tree.leaves(gradient[k]))
        assert metrics[f"grad_norm_{name}"] == pytest.approx(float(jnp.sqrt(squares)), rel=1e-5)
    mse = np.mean((np.clip(jax.jit(steps.apply)(params, BATCH["lq"]), 0, 1) - BATCH["gt"]) ** 2)
    assert metrics["mse"] == pytest.approx(mse, rel=1e-5)


def test_a_frozen_flow_network_stays_and_costs_no_gradient():
    params = steps.params()
    current, metrics = steps.train(params, [BATCH] * 3, flow_frozen=True)
    jax.tree.map(np.testing.assert_array_equal, current.params["spynet"], params["spynet"])
    assert np.any(current.params["conv_in"]["kernel"] != params["conv_in"]["kernel"])
    # Nothing of the flow network's gradient is in the norm that is reported and clipped.
    first = steps.train(params, [BATCH], flow_frozen=True)[1]["grad_norm"]
    gradient = _gradient(params)
    rest = [g for k, part in gradient.items() if k != "spynet" for g in jax.tree.leaves(part)]
    assert first == pytest.approx(float(jnp.sqrt(sum(jnp.sum(g**2) for g in rest))), rel=1e-5)


def test_the_average_follows_the_parameters():
    params = steps.params()
    current, _ = steps.train(params, [BATCH], ema_decay=0.5)
    plain, _ = steps.train(params, [BATCH])
    # At step 0 the memory is (1 + 0) / (10 + 0).
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, params, plain.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), current.ema, expected)
    assert current.weights is current.ema
    assert plain.weights is plain.params


def test_accumulation_gives_the_step_of_the_whole_batch():
    params = steps.params()
    whole, a = steps.train(params, [BATCH] * 2)
    parts, b = steps.train(params, [BATCH] * 2, accumulate=2)
    assert b == pytest.approx(a, rel=1e-4)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), whole.params, parts.params
    )


def test_accumulation_keeps_one_gradient_however_many_parts_there_are():
    """By the compiled program's memory, of a network whose gradient is nearly all of it."""
    params = {"kernel": np.zeros((300, 1200), np.float32)}
    parts = {"lq": (1, 1, 10, 10, 3), "gt": (1, 1, 20, 20, 3)}

    def apply(weights, video):
        flat = video.reshape(len(video), 300) @ weights["kernel"]
        return flat.reshape(len(video), 1, 20, 20, 3), {}

    def temporary(count):
        optimizer = optim.adam([])
        rate = lambda _: jnp.asarray(1e-2)  # noqa: E731
        one = step.make(
            apply, optimizer, rate, groups=[], accumulate=count, axis_name=parallel.AXIS
        )
        batch = {k: np.zeros((count, *shape[1:]), np.float32) for k, shape in parts.items()}
        current = state.create(params, optimizer, ema=False)
        program = parallel.data_parallel(one).lower(current, parallel.split(batch)).compile()
        return program.memory_analysis().temp_size_in_bytes

    gradient = params["kernel"].nbytes
    assert temporary(16) - temporary(2) < gradient  # 14 more gradients otherwise


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    params = steps.params()
    broken = {**BATCH, "lq": BATCH["lq"].copy()}
    broken["lq"][0, 0, 0, 0, 0] = np.nan
    good, _ = steps.train(params, [BATCH], ema_decay=0.5)
    skipped, metrics = steps.train(params, [BATCH, broken, broken], ema_decay=0.5)
    for field in ("params", "opt_state", "ema"):
        a, b = getattr(good, field), getattr(skipped, field)
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (int(skipped.step), metrics["skipped"], metrics["skipped_in_row"]) == (3, 2, 2)
    _, metrics = steps.train(params, [BATCH, broken, BATCH])
    assert (metrics["skipped"], metrics["skipped_in_row"]) == (1, 0)


def test_two_and_four_devices_do_what_one_does(tmp_path, program_cache):
    one, metrics = steps.train(steps.params(), [BATCH] * 3, ema_decay=0.9)
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    workers = {}
    for devices in (2, 4):
        environment = (
            os.environ
            | program_cache
            | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                "PYTHONPATH": os.pathsep.join(folders),
            }
        )
        command = [sys.executable, "-m", "helpers.steps", str(tmp_path / f"{devices}.npz")]
        workers[devices] = subprocess.Popen(command, env=environment)
    for devices, worker in workers.items():
        assert worker.wait(900) == 0  # generous: other work may share the machine
        with np.load(tmp_path / f"{devices}.npz") as result:
            assert result["devices"] == devices
            assert json.loads(str(result["metrics"])) == pytest.approx(metrics, rel=1e-4)
            # Sums in another order. (Adam hides a gradient N times too large; its moments, which
            # are sums of gradients and of their squares, do not.)
            for i, leaf in enumerate(jax.tree.leaves((one.params, one.opt_state))):
                np.testing.assert_allclose(result[f"arr_{i}"], leaf, atol=2e-5)
                scale = np.abs(leaf).max()
                np.testing.assert_allclose(result[f"arr_{i}"], leaf, atol=1e-3 * scale)


def test_a_state_in_its_sharding_compiles_the_step_once(caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        steps.train(steps.params(), [BATCH] * 3)
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
    with pytest.raises(UserError, match=r"config\.accumulate=4.*Pass --config\.accumulate=2"):
        parallel.check_batch(16, accumulate=4)


def test_a_pod_larger_than_the_batch_is_told_what_to_set(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 16)
    message = (
        r"batch_size=8 does not divide over 16 device.*Pass --config\.batch_size=16 with 0\.5 "
        r"times the steps and 1\.41 times the learning rate, or --config\.batch_scale=2, which "
        r"trains on 16 clips a step"
    )
    with pytest.raises(UserError, match=message):
        parallel.check_batch(8)
    parallel.check_batch(Settings(batch_size=8, batch_scale=2).scaled().batch_size)
    monkeypatch.setattr(jax, "device_count", lambda: 12)
    with pytest.raises(UserError, match=r"batch_size=12 with 0\.667 .* --config\.batch_scale=3,"):
        parallel.check_batch(8)


ADVICE = re.compile(r"--config\.(\w+)=(\d+)")


@pytest.mark.parametrize("devices", [3, 8, 12, 32])
def test_the_advice_about_a_batch_works(devices, monkeypatch):
    """Every one that is given, taken alone with what was passed before."""
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    given = 0
    for size, scale, accumulate in itertools.product((1, 8, 12, 32), (1, 2, 3, 4), (1, 2, 3, 8)):
        passed = {"batch_size": size, "batch_scale": scale, "accumulate": accumulate}
        try:
            parallel.check_batch(**passed)
            assert size * scale % (devices * accumulate) == 0
        except UserError as error:
            advice = ADVICE.findall(str(error))
            assert advice
            for option, value in advice:
                assert passed[option] != int(value)
                parallel.check_batch(**{**passed, option: int(value)})
                given += 1
    assert given > 10


def test_the_advice_about_a_batch_is_for_what_the_recipe_says(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 32)
    passed = {"batch_size": 8, "batch_scale": 2}
    with pytest.raises(UserError) as raised:
        run(tmp_path, **passed)
    assert "batch_size=8 x config.batch_scale=2 does not divide over 32 dev" in str(raised.value)
    advice = ADVICE.findall(str(raised.value))
    assert advice == [("batch_size", "16"), ("batch_scale", "4")]
    for option, value in advice:
        config = standin.config(**{**passed, option: int(value)})
        with standin.installed():
            recipe, *_ = loop._prepare(config, tmp_path / "run")
        assert recipe.settings.batch_size == 32


def test_computing_in_bfloat16_leaves_the_state_in_float32_and_the_step_nearly_as_it_was():
    params = steps.params()

    def stepped(dtype):
        def apply(params, video):
            return standin.Net(dtype=dtype).apply({"params": params}, video), {}

        optimizer = optim.adam([])
        rate = lambda _: jnp.asarray(1e-2)  # noqa: E731
        one = step.make(apply, optimizer, rate, groups=[], axis_name=parallel.AXIS)
        current = jax.device_put(state.create(params, optimizer, ema=False), parallel.replicated())
        return parallel.data_parallel(one)(current, parallel.split(BATCH))

    (half, a), (full, b) = stepped(jnp.bfloat16), stepped(jnp.float32)
    assert {x.dtype.name for x in jax.tree.leaves(half)} == {"float32", "int32"}
    assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=0.02)
    assert float(a["grad_norm"]) == pytest.approx(float(b["grad_norm"]), rel=0.05)
    assert float(a["grad_norm"]) != float(b["grad_norm"])  # it did compute in bfloat16
    kernel = lambda result: np.asarray(result.params["conv_out"]["kernel"])  # noqa: E731
    assert np.mean(np.sign(kernel(half)) == np.sign(kernel(full))) > 0.95


class Chain(nn.Module):
    """Two matrix products a step, over the first axis."""

    remat: layers.Remat

    @nn.compact
    def __call__(self, xs):
        def body(module, x):
            return nn.Dense(3, name="b")(jnp.tanh(nn.Dense(5, name="a")(x)))

        return layers.map_scan(self, body, xs, remat=self.remat)


def test_remat_policies_give_one_gradient_and_recompute_what_they_say():
    xs = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    params = Chain(False).init(jax.random.key(0), xs)
    gradients, products = {}, {}
    for remat in (False, True, "nothing", "dots"):
        gradient = jax.grad(lambda p, r=remat: jnp.sum(Chain(r).apply(p, xs) ** 2))
        products[remat] = str(jax.make_jaxpr(gradient)(params)).count("dot_general[")
        gradients[remat] = gradient(params)
    # Forward 2, backward 2 for the kernels and 1 between; the first one again where it is not kept.
    assert products == {False: 5, True: 6, "nothing": 6, "dots": 5}
    for other in gradients.values():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), gradients[False], other
        )
    with pytest.raises(UserError, match=r"remat_policy is 'all'; choose from .*'nothing'"):
        layers.remat_choice(True, "all")
    assert layers.remat_choice(False, "dots") is False
    assert layers.remat_choice(True, "dots") == "dots"


def test_motion_is_read_from_what_networks_sow():
    flows = np.zeros((3, 1, 2, 2, 2), np.float32)
    flows[1, 0, 0, 1] = 3, 4
    pairs = np.float32([[0.5, 2], [1.5, 7]])  # of two clips, mean and maximum each
    found = step.motion(
        {"flows_forward": (flows,), "flows_backward": (flows[:0],), "features": ({"a": flows},)}
        | {"forward_1": {"residue_lengths": (pairs,)}}
    )
    expected = {"flow_mean": 5 / 12, "flow_max": 5, "offset_mean": 1, "offset_max": 7}
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected)
    assert step.motion({}) == {}


def test_a_training_step_of_rvrt_reports_flow_and_offsets_of_every_clip(monkeypatch):
    """Out of the scan over clips and through its gradient; only traced, for speed."""
    monkeypatch.setattr(rvrt, "SpyNet", toy.PlainFlow)
    fields = {"embed_dims": (4,) * 3, "num_blocks": (1,) * 3, "num_heads": (1,) * 3}
    fields |= {"depths": (1,) * 3, "num_feat": 8, "deformable_groups": 2, "attention_heads": 2}
    model = models.build("rvrt", **fields, remat=True)
    video = jax.ShapeDtypeStruct((2, 8, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), video)["params"]

    def loss(params, video):
        output, sowed = model.apply({"params": params}, video, mutable=["intermediates"])
        return jnp.sum(output), (step.motion(sowed), sowed["intermediates"]["forward_2"])

    differentiate = jax.value_and_grad(loss, has_aux=True)
    (_, (motion, branch)), _ = jax.eval_shape(differentiate, params, video)
    assert set(motion) == {"flow_mean", "flow_max", "offset_mean", "offset_max"}
    assert {value.shape for value in motion.values()} == {()}
    (lengths,) = branch["residue_lengths"]
    assert lengths.shape == (3, 2)  # four clips of two frames, all but the first aligned


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("1.2.3.4:5", None, None), "--num_processes, --process_id missing: a plain cluster"),
        (("1.2.3.4:5", 2, 2), "--process_id=2 with --num_processes=2; .* from 0 to 1"),
        (("1.2.3.4:5", 2, 1), r"could not be joined \(DEADLINE_EXCEEDED\)\. Start the same"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_refused(given, message, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED\nand where")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    names = ("coordinator", "num_processes", "process_id")
    with pytest.raises(UserError, match=message):
        parallel.join_hosts(**dict(zip(names, given, strict=True)))
