"""Schedule and optimizer against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rvrt_jax import optim


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
    updates, _ = _updates(optim.adam(flow_multiplier=0.25, flow_frozen=False), gradients, params)

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
    frozen = optim.adam(flow_multiplier=0.25, flow_frozen=True)
    thawed = optim.adam(flow_multiplier=0.25, flow_frozen=False)
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
    clipping = optim.adam(flow_multiplier=1, flow_frozen=False, clip_norm=0.5)
    clipped, _ = _updates(clipping, [gradient, gradient], params)
    expected, _ = _updates(
        optim.adam(flow_multiplier=1, flow_frozen=False), [scaled, scaled], params
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), clipped, expected)
