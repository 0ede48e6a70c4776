"""Schedule and optimizer against closed forms and golden numbers."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import goldens

from rvrt_jax.errors import UserError
from rvrt_jax.training import optim

FLOW = (optim.Group("flow", "spynet", 0.25),)


@pytest.mark.parametrize("step", [0, 1, 250, 999, 1000, 1001, 5000])
def test_cosine_is_the_closed_form_and_stays_at_the_floor(step):
    rate = optim.cosine(peak=4e-4, floor=1e-7, steps=1000)(step)
    progress = min(step, 1000) / 1000
    expected = 1e-7 + (4e-4 - 1e-7) * (1 + math.cos(math.pi * progress)) / 2
    assert float(rate) == pytest.approx(expected, rel=1e-5, abs=1e-11)  # float32 cosine


def test_the_last_step_does_not_return_to_the_peak():
    rate = optim.cosine(peak=4e-4, floor=1e-7, steps=600_000)
    assert float(rate(600_000)) == pytest.approx(1e-7, rel=1e-3)


def test_warm_up_climbs_linearly():
    plain = optim.cosine(peak=1.0, floor=0.0, steps=10_000)
    warm = optim.cosine(peak=1.0, floor=0.0, steps=10_000, warmup_steps=4)
    ratios = [float(warm(s) / plain(s)) for s in range(7)]
    np.testing.assert_allclose(ratios, [0.2, 0.4, 0.6, 0.8, 1, 1, 1], rtol=1e-6)


def test_a_warm_up_before_restarts_is_that_of_one_cosine_and_comes_once():
    single = optim.cosine(peak=1.0, floor=0.0, steps=10, warmup_steps=4)
    options = {"peak": 1.0, "floor": 0.0, "periods": (10, 20), "weights": (1.0, 0.5)}
    warm = optim.cosine_restarts(**options, warmup_steps=4)
    plain = optim.cosine_restarts(**options)
    for step in range(11):
        assert float(warm(step)) == pytest.approx(float(single(step)), abs=1e-7)
    for step in range(11, 31):
        assert float(warm(step)) == float(plain(step))


def _params():
    return {
        "spynet": {"level_0": {"kernel": jnp.full((3,), 2.0)}},
        "rest": {"kernel": jnp.full((3,), 2.0), "bias": jnp.zeros((2, 2))},
    }


def _updates(transform, gradients, params):
    state, result = transform.init(params), []
    for gradient in gradients:
        update, state = transform.update(gradient, state, params)
        result.append(update)
    return result, state


def test_adam_matches_the_textbook_in_both_groups():
    rng = np.random.default_rng(0)
    params = _params()
    draw = lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32)  # noqa: E731
    gradients = [jax.tree.map(draw, params) for _ in range(4)]
    updates, _ = _updates(optim.adam(FLOW), gradients, params)

    def textbook(series):
        m = v = 0.0
        for t, g in enumerate(series, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            yield (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)

    for multiplier, path in ((0.25, ("spynet", "level_0", "kernel")), (1.0, ("rest", "kernel"))):
        pick = lambda tree, path=path: np.asarray(_at(tree, path), np.float64)  # noqa: E731
        expected = textbook([pick(g) for g in gradients])
        for update, value in zip(updates, expected, strict=True):
            np.testing.assert_allclose(pick(update), multiplier * value, rtol=2e-5)


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def test_freezing_leaves_the_flow_state_alone_and_thawing_starts_it_afresh():
    params = _params()
    gradients = [jax.tree.map(lambda p, i=i: jnp.full_like(p, i), params) for i in (1.0, 2.0, 3.0)]
    frozen = optim.adam(FLOW, frozen={"flow"})
    thawed = optim.adam(FLOW)
    updates, state = _updates(frozen, gradients[:2], params)
    assert not np.any(updates[-1]["spynet"]["level_0"]["kernel"])
    assert jax.tree.structure(state) == jax.tree.structure(thawed.init(params))

    update, _ = thawed.update(gradients[2], state, params)
    first, _ = thawed.update(gradients[2], thawed.init(params), params)
    flow = lambda tree: np.asarray(tree["spynet"]["level_0"]["kernel"])  # noqa: E731
    np.testing.assert_array_equal(flow(update), flow(first))  # bias correction starts at 1
    rest, _ = _updates(thawed, gradients, params)
    np.testing.assert_array_equal(update["rest"]["kernel"], rest[-1]["rest"]["kernel"])


def test_clipping_limits_the_norm_of_the_whole_gradient():
    params = _params()
    gradient = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
    norm = float(optax.tree.norm(gradient))
    scaled = jax.tree.map(lambda g: g * 0.5 / norm, gradient)
    clipping = optim.adam([], clip_norm=0.5)
    clipped, _ = _updates(clipping, [gradient, gradient], params)
    expected, _ = _updates(optim.adam([]), [scaled, scaled], params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), clipped, expected)


GOLDEN = json.loads((goldens.GOLDEN / "edvr" / "lr_schedule.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_restarts(name):
    golden = GOLDEN[name]
    rate = optim.cosine_restarts(
        peak=golden["base_lr"],
        floor=golden["eta_min"],
        periods=golden["periods"],
        weights=golden["restart_weights"],
    )
    steps = {int(step): value for step, value in golden["lr_at_scheduler_step"].items()}
    found = jax.vmap(rate)(jnp.array(list(steps)))
    # The cosine near its lowest point is rounded to 6e-8 of the peak in float32.
    np.testing.assert_allclose(found, list(steps.values()), rtol=1e-5, atol=4e-11)
    assert float(rate(700_000)) == pytest.approx(golden["eta_min"], rel=1e-3)


def test_every_period_needs_a_weight():
    with pytest.raises(UserError, match="2 periods of the learning rate and 1 weights"):
        optim.cosine_restarts(peak=1, floor=0, periods=(3, 4), weights=(1,))


def test_groups_are_found_by_parts_of_names_and_the_first_counts():
    leaf = jnp.ones(2)
    params = {
        "pcd_align": {"dcn_pack_l1": {"kernel": leaf, "conv_offset": {"bias": leaf}}},
        "fusion": {"feat_fusion": {"kernel": leaf}},
        "conv_last": {"bias": leaf},
    }
    groups = (
        optim.Group("fusion", "fusion"),
        optim.Group("dcn", "dcn", 0.1, frozen_steps=5),
        optim.Group("rest", "", frozen_steps=3),
    )
    assert optim.frozen_at(groups, 2) == {"dcn", "rest"}
    assert optim.frozen_at(groups, 3) == {"dcn"}
    assert optim.frozen_at(groups, 5) == frozenset()

    def first(frozen):
        updates, _ = _updates(optim.adam(groups, frozen=frozen), [params], params)
        update = updates[0]
        return [
            float(x[0])
            for x in (
                update["pcd_align"]["dcn_pack_l1"]["kernel"],
                update["pcd_align"]["dcn_pack_l1"]["conv_offset"]["bias"],
                update["fusion"]["feat_fusion"]["kernel"],
                update["conv_last"]["bias"],
            )
        ]

    assert first(()) == pytest.approx([0.1, 0.1, 1, 1], rel=1e-5)  # Adam's first direction is 1
    assert first({"dcn", "rest"}) == pytest.approx([0, 0, 1, 0])
    gradient = jax.grad(
        lambda p: sum(
            x.sum() for x in jax.tree.leaves(optim.stop_frozen_gradients(p, groups, {"rest"}))
        )
    )(params)
    assert gradient["conv_last"]["bias"].sum() == 0
    assert gradient["pcd_align"]["dcn_pack_l1"]["kernel"].sum() == 2
