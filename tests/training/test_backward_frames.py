"""A gradient through the last frames alone, held against plain loops over bound networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import toy

from rvrt_jax import models, parallel
from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError
from rvrt_jax.models import basicvsr, guided_attention, rvrt
from rvrt_jax.models.layers import from_clips, to_clips
from rvrt_jax.training import checks, losses, optim, state, step
from rvrt_jax.training.settings import Settings

pytestmark = pytest.mark.usefixtures("program_cache")

FIELDS = {
    "basicvsr": {"num_feat": 4, "num_block": 1},
    "rvrt": {
        "embed_dims": (4,) * 3,
        "num_blocks": (1,) * 3,
        "num_heads": (1,) * 3,
        "depths": (1,) * 3,
        "window_size": (2, 4, 4),
        "num_feat": 4,
        "offset_feat": 4,
        "deformable_groups": 1,
        "attention_heads": 1,
        "attention": "plain",
    },
}
FRAMES, LAST = 4, 2
VIDEO = np.random.default_rng(3).random((1, FRAMES, 8, 8, 3), np.float32)


@pytest.fixture(params=["basicvsr", pytest.param("rvrt", marks=pytest.mark.slow)])
def network(request, monkeypatch):
    """A small network without SpyNet, whose six levels would take most of the time, and params."""
    for module in (basicvsr, rvrt):
        monkeypatch.setattr(module, "SpyNet", toy.PlainFlow)
    model = models.build(request.param, **FIELDS[request.param])
    shapes = jax.eval_shape(model.init, jax.random.key(0), VIDEO)["params"]
    random = np.random.default_rng(1)
    draw = lambda leaf: (0.3 * random.standard_normal(leaf.shape)).astype(np.float32)  # noqa: E731
    return model, jax.tree.map(draw, shapes)


class ByTime:
    """Two bound copies of a network: the second one's parameters, and results, are constants."""

    def __init__(self, model, params, first_late):
        self.late = model.bind({"params": params})
        self.early = model.bind({"params": jax.lax.stop_gradient(params)})
        self.first_late = first_late

    def __call__(self, at, call):
        """Returns call(network) of the frame or clip number `at`."""
        if at >= self.first_late:
            return call(self.late)
        return jax.lax.stop_gradient(call(self.early))


def flows_of(network, frames):
    """Flows to the next and to the previous frame, of each pair of neighbours."""
    pairs = [
        network(k + 1, lambda net, k=k: (
            net.spynet(frames[k], frames[k + 1]), net.spynet(frames[k + 1], frames[k])
        ))
        for k in range(len(frames) - 1)
    ]  # fmt: skip
    return [a for a, _ in pairs], [b for _, b in pairs]


def basicvsr_by_loops(model, params):
    network = ByTime(model, params, FRAMES - LAST)
    frames = jnp.moveaxis(VIDEO, 1, 0)
    to_next, to_previous = flows_of(network, frames)
    none = jnp.zeros_like(to_next[0])
    states = {}
    for name, order, flows in (
        ("backward", range(FRAMES)[::-1], [*to_next, none]),
        ("forward", range(FRAMES), [none, *to_previous]),
    ):
        hidden = jnp.zeros((*frames[0].shape[:-1], model.num_feat))
        for k in order:
            inputs = hidden, (frames[k], flows[k])
            hidden = network(k, lambda net, x=inputs, n=name: getattr(net, n).step(*x)[0])
            states[name, k] = hidden
    outputs = [
        network(k, lambda net, k=k: net._upsample(
            (frames[k], states["backward", k], states["forward", k])
        ))
        for k in range(FRAMES)
    ]  # fmt: skip
    return jnp.stack(outputs, axis=1)


def rvrt_by_loops(model, params):
    n = model.clip_size
    count = FRAMES // n
    clips = to_clips(jnp.asarray(VIDEO), n)
    by_frame = ByTime(model, params, FRAMES - LAST)
    network = ByTime(model, params, count - LAST // n)
    to_next, to_previous = flows_of(by_frame, jnp.moveaxis(VIDEO, 1, 0))
    guidance = {
        "backward": guided_attention.clip_guidance(jnp.stack(to_next[::-1]), n),
        "forward": guided_attention.clip_guidance(jnp.stack(to_previous), n),
    }
    features = [[network(k, lambda net, k=k: net._shallow(clips[k])) for k in range(count)]]
    for name in rvrt.BRANCHES:
        direction = name[:-2]
        turn = (lambda x: x[:, ::-1]) if direction == "backward" else (lambda x: x)
        order = list(range(count))[:: -1 if direction == "backward" else 1]
        known = [jnp.stack([turn(x[k]) for x in features], axis=-2) for k in order]
        hidden, refined, found = None, [], {}
        for i, k in enumerate(order):

            def visit(net, i=i, hidden=hidden, known=known, name=name, flows=guidance[direction]):
                branch = getattr(net, name)
                if i == 0:
                    return branch.refine(known[0], jnp.zeros_like(known[0][..., 0, :])), None
                last = known[i][..., -1, :], known[i - 1][..., -1, :]
                aligned, flow, _ = branch.align(*last, hidden, flows[i - 1])
                return branch.refine(known[i], aligned), flow

            hidden, flow = network(k, visit)
            refined += [] if i == 0 else [flow]
            found[k] = turn(hidden)
        guidance[direction] = jnp.stack(refined)
        features.append([found[k] for k in range(count)])
    outputs = [
        network(k, lambda net, k=k: net._reconstruct(
            (jnp.concatenate([x[k] for x in features], -1), clips[k])
        ))
        for k in range(count)
    ]  # fmt: skip
    return from_clips(jnp.stack(outputs))


def test_what_is_computed_at_the_first_frames_is_constant(network):
    model, params = network
    loops = basicvsr_by_loops if isinstance(model, basicvsr.BasicVSR) else rvrt_by_loops

    def differentiate(call):
        def weigh(params):
            output = call(params)
            return jnp.sum(jnp.sin(3 * output[:, -LAST:])), output

        return jax.jit(jax.grad(weigh, has_aux=True))(params)

    found, output = differentiate(lambda p: model.apply({"params": p}, VIDEO, backward_frames=LAST))
    expected, by_loops = differentiate(lambda p: loops(model, p))
    whole, plain = differentiate(lambda p: model.apply({"params": p}, VIDEO))
    # Values do not change; the same sums in other programs.
    np.testing.assert_allclose(output, plain, atol=1e-5)
    np.testing.assert_allclose(by_loops, plain, atol=1e-5)
    different = 0
    for a, b, c in zip(*map(jax.tree.leaves, (found, expected, whole)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4 * max(1e-3, np.abs(b).max()))
        different += np.abs(a - c).max() > 0.01 * np.abs(c).max()
    assert different > 4


def test_the_loss_is_of_the_last_frames_alone(monkeypatch):
    monkeypatch.setattr(basicvsr, "SpyNet", toy.PlainFlow)
    model = models.build("basicvsr", **FIELDS["basicvsr"])
    settings = Settings(steps=2, backward_frames=LAST, flow_freeze_steps=0)
    params = state.draw(model, 0)
    groups = optim.learning_groups(settings, model.parameter_groups())
    train = step.programs(settings, model, groups)(frozenset())
    gt = np.random.default_rng(0).random((1, FRAMES, 32, 32, 3), np.float32)
    batch = {"lq": VIDEO, "gt": gt}
    current = state.create(params, optim.adam(groups), ema=False)
    current = jax.device_put(current, parallel.replicated())
    _, values = train(current, parallel.split(batch))
    output = jax.jit(model.apply)({"params": params}, VIDEO)[:, -LAST:]
    expected = losses.charbonnier(output, gt[:, -LAST:])
    assert float(values["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("frames", "model", "message"),
    [
        (2, models.build("edvr_m"), "backward_frames=2 has no effect: .* one frame of a window"),
        (3, models.build("rvrt_sr"), "multiple of 2 up to the 6 frames"),
        (8, models.build("rvrt_sr"), "multiple of 2 up to the 6 frames"),
    ],
)
def test_frames_that_cannot_be_are_refused(frames, model, message):
    with pytest.raises(UserError, match=message):
        checks.check_backward(frames, DataOptions(num_frames=6), model)


def test_memory_does_not_grow_with_the_clip_as_that_of_a_whole_gradient(monkeypatch):
    """By the compiled steps' memory, from four frames to sixteen of which two are learnt from."""
    monkeypatch.setattr(basicvsr, "SpyNet", toy.PlainFlow)
    model = models.build("basicvsr", **FIELDS["basicvsr"])
    groups = optim.learning_groups(Settings(steps=2, flow_freeze_steps=0), model.parameter_groups())
    params = state.draw(model, 0)
    current = state.create(params, optim.adam(groups), ema=False)

    def temporary(frames, last):
        settings = Settings(steps=2, backward_frames=last, flow_freeze_steps=0)
        train = step.programs(settings, model, groups)(frozenset())
        batch = {"lq": (1, frames, 8, 8, 3), "gt": (1, frames, 32, 32, 3)}
        batch = {name: np.zeros(shape, np.float32) for name, shape in batch.items()}
        program = train.lower(current, parallel.split(batch)).compile()
        return program.memory_analysis().temp_size_in_bytes

    whole, last = (temporary(16, n) - temporary(4, n) for n in (0, LAST))
    # Five times less when written; results of all frames are kept, as the branches need them.
    assert last < whole / 3
