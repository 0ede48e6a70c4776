"""What JAX computes, ONNX Runtime computes from our files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.small import small

from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import bundled
from rvrt_jax.export import onnx_file, onnx_operators, program
from rvrt_jax.export.__main__ import main
from rvrt_jax.export.onnx_graph import Graph, value_info

X = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
INDEX = jnp.array([[4, 0, 2], [1, 3, 3]])


def run_onnx(model: onnx.ModelProto | str, **inputs) -> list[np.ndarray]:
    data = model if isinstance(model, str) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings of constants that only loops use
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def scanned(x, *, reverse):
    def step(total, row):
        total = jnp.tanh(total + row)
        return total, 2 * total

    total, rows = jax.lax.scan(step, jnp.zeros(x.shape[1:]), x, reverse=reverse)
    return jnp.concatenate([total[None], rows])


def counted(x):
    return jax.lax.fori_loop(0, 3, lambda i, y: y * x + i, x)


def chosen(x):
    return jax.lax.cond(x[0, 0, 0, 0] > 0, jnp.sin, lambda y: 3 * y, x)


def by_platform(x):
    return jax.lax.platform_dependent(x, cpu=lambda y: 2 * y, default=lambda y: 3 * y)


def pooled(x, init, operation):
    pads = ((0, 0), (1, 0), (2, 1), (0, 0))
    return jax.lax.reduce_window(x, init, operation, (1, 3, 3, 1), (1, 2, 1, 1), pads)


def convolved(x, groups, padding):
    kernel = jnp.sin(jnp.arange(192 // groups)).reshape(3, 2, 4 // groups, 8)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (2, 1),
        padding,
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def multiplied(x):
    return jnp.einsum("bhwc,bwdc->bwhd", x, jnp.swapaxes(jnp.sin(x), 1, 2))


def gathered(x):
    """Indices of one axis per row, of two axes with a slice between, and beyond the end."""
    rows = x[jnp.arange(2)[:, None], INDEX]
    far = x[:, :, INDEX + 7]
    pairs = x[:, INDEX, :, INDEX % 4]
    one = jax.vmap(lambda frame, index: frame.at[index].get(mode="clip"))(x, INDEX + 3)
    return jnp.concatenate([part.ravel() for part in (rows, far, pairs, one)])


def whole_numbers(x):
    count = jnp.arange(24).reshape(4, 6) - 9
    return (count // 5 + count % 4 + jax.lax.rem(count, 7) + jnp.sign(count)) * x[0, :4, :, 0]


def rearranged(x):
    x = jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=0.5)[:, 1::2, ::-1]
    left, right = jnp.split(x, [2], axis=2)
    x = jnp.concatenate([jnp.roll(right, 1, axis=3), left], axis=2)
    return jax.lax.pad(
        jnp.stack([x, x * x], axis=-1), 0.0, [(0, 0, 0), (-1, 1, 0)] + 3 * [(0, 0, 0)]
    )


def sliced(x):
    start = jnp.int32(x[0, 0, 0, 0] * 0) + 4
    return jax.lax.dynamic_slice(x, (0, start, 1, 0), (2, 3, 2, 4))


def pointwise(x):
    y = jax.nn.sigmoid(x) + jax.nn.gelu(x, approximate=False) + jax.nn.softmax(x) + jnp.abs(x) ** 3
    y = y + jnp.log(1 + jnp.exp(-x))
    y = y + jax.lax.rsqrt(jnp.square(x) + 1) + jnp.sqrt(jnp.abs(x)) + jnp.floor(x) + jnp.tanh(x)
    y = y + jax.lax.erf(x) + jnp.clip(x, -0.5, 0.25) + jnp.minimum(x, 0) + x.max(-1, keepdims=True)
    inside = ((x > -1) & (x <= 1)) | ~(x >= 0) | (x != 2) | (x == 3) | (x < 5)
    return jnp.where(inside, y, -x / 3)


def name_of(function):
    """Returns a name without addresses, which differ between test processes."""
    if not isinstance(function, functools.partial):
        return function.__name__
    values = [getattr(value, "__name__", str(value)) for value in function.keywords.values()]
    return " ".join([function.func.__name__, *values])


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(scanned, reverse=False),
        functools.partial(scanned, reverse=True),
        counted,
        chosen,
        by_platform,
        functools.partial(pooled, init=-jnp.inf, operation=jax.lax.max),
        functools.partial(pooled, init=0.0, operation=jax.lax.add),
        functools.partial(convolved, groups=1, padding=((1, 2), (0, 1))),
        functools.partial(convolved, groups=2, padding=((0, 0), (2, 2))),
        multiplied,
        gathered,
        whole_numbers,
        rearranged,
        sliced,
        pointwise,
    ],
    ids=name_of,
)
def test_operations_mean_the_same(function):
    closed = jax.make_jaxpr(function)(X)
    graph = Graph(onnx_operators.OPERATORS)
    (result,) = graph.run(closed.jaxpr, closed.consts, ["x"])
    graph.nodes.append(onnx.helper.make_node("Identity", [graph.name_of(result)], ["y"]))
    inputs, outputs = [value_info("x", X)], [value_info("y", closed.out_avals[0])]
    body = onnx.helper.make_graph(graph.nodes, "test", inputs, outputs, graph.initializers)
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(body, ir_version=9, opset_imports=opset)
    onnx.checker.check_model(model)
    (computed,) = run_onnx(model, x=np.asarray(X))
    expected = np.asarray(function(X))
    assert computed.dtype == expected.dtype
    np.testing.assert_allclose(computed, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["rvrt", "edvr", "basicvsr"])
def test_networks_compute_the_same(tmp_path, name):
    loaded, size = small(name)
    fixed = program.Fixed(loaded, size)
    file = tmp_path / "net.onnx"
    onnx_file.write(file, fixed)
    video = np.random.default_rng(0).random(fixed.input.shape, np.float32)
    (computed,) = run_onnx(str(file), video=video)
    expected = jax.jit(loaded.model.apply)({"params": loaded.params}, video)
    np.testing.assert_allclose(computed, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name, size", [("rvrt_small", (8, 96, 160)), ("edvr_tiny", (5, 96, 160))])
def test_trained_networks_compute_the_same(tmp_path, name, size):
    file = str(tmp_path / "net.onnx")
    sizes = [f"--{key}={n}" for key, n in zip(("frames", "height", "width"), size, strict=True)]
    assert main([name, file, *sizes]) == 0
    import rvrt_jax

    model, params = rvrt_jax.load(name)
    # A real clip at half its size. On white noise, whose flow is as random, few pixels of RVRT
    # differ by up to 2e-4.
    clip = bundled.clips()["dog_phone"][: size[0]].astype(np.float32) / 255
    video = clip.reshape(1, size[0], size[1], 2, size[2], 2, 3).mean(axis=(3, 5))
    (computed,) = run_onnx(file, video=video)
    expected = jax.jit(model.apply)({"params": params}, video)
    np.testing.assert_allclose(computed, expected, atol=1e-4, rtol=0)


def test_the_file_names_its_licence_and_sizes(tmp_path):
    loaded, size = small("basicvsr")
    onnx_file.write(tmp_path / "net.onnx", program.Fixed(loaded, size))
    stored = onnx.load(tmp_path / "net.onnx")
    properties = {entry.key: entry.value for entry in stored.metadata_props}
    assert properties["license"] == "CC0-1.0"
    shape = [dim.dim_value for dim in stored.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, size[0], 4 * size[1], 4 * size[2], 3]


def test_what_cannot_be_translated_is_named(tmp_path, monkeypatch):
    loaded, size = small("basicvsr")
    without = {k: v for k, v in onnx_operators.OPERATORS.items() if k != "gather"}
    monkeypatch.setattr(onnx_operators, "OPERATORS", without)
    with pytest.raises(UserError, match="the JAX operation 'gather'.*Export it as .rvrt"):
        onnx_file.write(tmp_path / "net.onnx", program.Fixed(loaded, size))
    with pytest.raises(UserError, match="bfloat16 cannot be written as ONNX"):
        value_info("x", jax.ShapeDtypeStruct((1,), jnp.bfloat16))
    assert not list(tmp_path.iterdir())
