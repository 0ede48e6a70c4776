"""Products of float32 numbers are float32 on every platform, read from the lowered programs."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import pytest

from rvrt_jax import models, parallel
from rvrt_jax.ops import platforms

SMALL = {
    "rvrt": {
        "embed_dims": (8, 8, 8),
        "num_blocks": (1, 1, 1),
        "depths": (1, 1, 1),
        "num_heads": (2, 2, 2),
        "deformable_groups": 2,
        "attention_heads": 2,
        "num_feat": 8,
        "offset_feat": 8,
    },
    "edvr": {"num_feat": 8, "deformable_groups": 2, "num_frame": 3}
    | {"num_extract_block": 1, "num_reconstruct_block": 1},
    "basicvsr": {"num_feat": 8, "num_block": 1},
}
FRAMES = {"rvrt": 4, "edvr": 3, "basicvsr": 3}
PRODUCT = re.compile(r"stablehlo\.(dot_general|convolution).*?: \(tensor<([^>]*)>, tensor<([^>]*)>")


def lowered(name: str, platform: str, **fields) -> str:
    """Returns the program of a network, as it goes to the compiler.

    In float32 with its gradient. In bfloat16 without: there gradients of products have factors that
    were summed in float32, and need no more than bfloat16's precision.
    """
    chosen = jax.config.jax_default_matmul_precision
    return lowered_once(name, platform, chosen, **fields)


@functools.cache
def lowered_once(name: str, platform: str, chosen: str, **fields) -> str:
    model = models.build(name, **SMALL[name], **fields)
    video = jax.ShapeDtypeStruct((1, FRAMES[name], 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), video)["params"]

    def loss(params, video):
        return jnp.mean(model.apply({"params": params}, video) ** 2)

    function = jax.grad(loss) if model.dtype == jnp.float32 else loss
    with platforms.known_to_be(platform):
        traced = jax.jit(function).trace(params, video)
        return traced.lower(lowering_platforms=(platform,)).as_text()


def inexact(program: str) -> list[str]:
    """Returns the products of a program that take a float32 factor at default precision."""
    products = [line for line in program.splitlines() if PRODUCT.search(line)]
    assert len(products) > 20, "the pattern finds no products any more"
    found = []
    for line in products:
        kinds = {text.rsplit("x", 1)[-1] for text in PRODUCT.search(line).groups()[1:]}
        if "f32" in kinds and line.count("HIGHEST") != 2:
            found.append(line.strip())
    return found


@pytest.fixture
def users_default():
    """What users have: no precision is chosen."""
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", SMALL)
def test_float32_means_float32(name, platform, dtype, users_default):
    program = lowered(name, platform, dtype=jnp.dtype(dtype))
    assert inexact(program) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_flow_and_positions_of_rvrt_are_exact(platform, dtype, users_default):
    """SpyNet has the only 7 x 7 kernels, the last offsets the only 72 channels: 2 x 2 x 9 x 2.

    TPUs take a kernel row by row: a matrix of 7 times the input's channels, in the gradient 7 times
    the output's.
    """
    parallel.choose_matmul_precision("tf32")
    program = lowered("rvrt", platform, dtype=jnp.dtype(dtype))
    products = [line for line in program.splitlines() if PRODUCT.search(line)]
    kernels = [r"7x7x\d+x\d+"]
    if platform == "tpu":
        channels = list(itertools.pairwise((8, 32, 64, 32, 16, 2)))
        kernels = [f"{7 * i}x{o}" for i, o in channels]
        if dtype == "float32":  # with the gradient
            kernels += [f"{7 * o}x{i}" for i, o in channels]
    for kernel in (*kernels, "1x1x8x72"):
        found = [line for line in products if re.search(rf"tensor<{kernel}xf32>\) ", line)]
        assert found and all(line.count("HIGHEST") == 2 for line in found), kernel
    if platform == "cuda":  # TPUs put 3 columns of 24 channels beside each other
        assert "x72xbf16" not in program


def test_gpus_do_not_wait_for_the_host_at_each_clip(users_default):
    """A branch of the program does; TPUs have one in each of the four walks over the clips."""
    assert branches(lowered("rvrt", "cuda", dtype=jnp.dtype("bfloat16"))) == 0
    assert branches(lowered("rvrt", "tpu", dtype=jnp.dtype("bfloat16"))) == 4


def branches(program: str) -> int:
    """Counts the choices that depend on numbers; those between platforms depend on a constant."""
    constant = set(re.findall(r"(%\w+) = stablehlo.constant", program))
    count = 0
    for name, index in re.findall(r"(%\w+)(?::\d+)? = \"stablehlo.case\"\((%\w+)\)", program):
        if index in constant:
            constant.add(name)
        else:
            count += 1
    return count + program.count("stablehlo.if")


@pytest.mark.parametrize("name", ["rvrt", "edvr"])
def test_flow_and_offsets_stay_exact_where_tf32_is_chosen(name, users_default):
    parallel.choose_matmul_precision("tf32")
    program = lowered(name, "cuda")
    exact = [line for line in program.splitlines() if "HIGHEST" in line and PRODUCT.search(line)]
    assert exact and inexact(program)  # the rest follows the choice


def test_float32_may_be_named_and_is_the_default(users_default):
    parallel.choose_matmul_precision("tf32")
    parallel.choose_matmul_precision("float32")
    assert inexact(lowered("edvr", "cuda")) == []
