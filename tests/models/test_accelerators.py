"""Networks compile for GPUs and TPUs that are not there; costs of programs are counted right."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import accelerators
from rvrt_jax import command_line, models

PLUGINS = {"cuda": "jax_cuda13_plugin", "tpu": "libtpu"}
SMALL = {
    "rvrt": {"embed_dims": (8, 8, 8), "num_blocks": (1, 1, 1), "num_heads": (2, 2, 2)}
    | {"deformable_groups": 2, "attention_heads": 2, "num_feat": 8, "offset_feat": 8},
    "edvr": {"num_feat": 8, "deformable_groups": 2, "num_frame": 3}
    | {"num_extract_block": 1, "num_reconstruct_block": 1},
    "basicvsr": {"num_feat": 8, "num_block": 1},
}
PROGRAM = """HloModule small

%body (p.1: (f32[4])) -> (f32[4]) {
  %p.1 = (f32[4]) parameter(0)
  %x.1 = f32[4]{0} get-tuple-element(%p.1), index=0
  %sum.1 = f32[4]{0} fusion(%x.1, %x.1), kind=kLoop, calls=%add
  ROOT %t.1 = (f32[4]) tuple(%sum.1)
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %half = bf16[4,2]{1,0} fusion(%a), kind=kLoop, calls=%halve
  %start = (f32[4]) tuple(%a)
  %loop = (f32[4]) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = f32[4]{0} get-tuple-element(%loop), index=0
}
"""  # noqa: E501


# How TPUs' compiler writes the same loop, and an estimate.
CONDITION = """%c (p.2: (f32[4])) -> pred[] {
  %p.2 = (f32[4]) parameter(0)
  %limit = s32[]{:T(128)} constant(3)
  %i = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT, metadata={op_name="while/lt"}
}

"""
KNOWN = ', backend_config={"known_trip_count":{"n":"3"}}'
ESTIMATE = ', backend_config={"window_config":{"estimated_cycles":"50"}}'
OF_TPU = PROGRAM.replace(KNOWN, "").replace("calls=%add", f"calls=%add{ESTIMATE}")
AS_OFTEN = {"launches": 1 + 3, "bytes": (16 + 16) + 3 * (16 + 2 * 16)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROGRAM, AS_OFTEN),
        (OF_TPU.replace("ENTRY", f"{CONDITION}ENTRY"), AS_OFTEN | {"cycles": 150}),
        (OF_TPU, {"launches": 2, "bytes": 80, "cycles": 50, "loops of unknown length": 1}),
    ],
)
def test_a_loop_counts_as_often_as_it_runs(text, expected):
    assert {key: value for key, value in accelerators.count(text).items() if value} == expected


@pytest.mark.parametrize("name", models.VARIANTS)
def test_every_variant_is_measured(name):
    forward, train = (accelerators.network(name, mode, "bfloat16") for mode in ("forward", "train"))
    assert forward.dtype == train.dtype == jax.numpy.bfloat16
    assert train == forward if name == "ffdnet" else train == forward.clone(remat=True)


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("platform", PLUGINS)
def test_small_networks_compile(platform, name, mode):
    if importlib.util.find_spec(PLUGINS[platform]) is None:
        pytest.skip(f"the compiler for {platform} is not installed ({PLUGINS[platform]})")
    devices = accelerators.topology(platform, "v5e:2x2")
    net = models.build(name, **SMALL[name], dtype=jax.numpy.bfloat16)
    cost = accelerators.cost(net, devices, mode, 4, (32, 32))
    assert cost["launches"] > 0 and cost["gigabytes"] > 0


# What a GPU does with the sums of a gradient: prints the compiled program.
SCATTER = """
import jax
from jax.sharding import SingleDeviceSharding
from benchmarks import accelerators
from rvrt_jax import command_line

if {deterministic}:
    command_line.add_in_one_order()
place = SingleDeviceSharding(accelerators.topology("cuda", "")[0])
shapes = ((400, 16), "float32"), ((900,), "int32"), ((900, 16), "float32")
arguments = [jax.ShapeDtypeStruct(*shape, sharding=place) for shape in shapes]
print(jax.jit(lambda x, i, y: x.at[i].add(y)).lower(*arguments).compile().as_text())
"""


@pytest.mark.parametrize("deterministic", [False, True])
def test_sums_are_sorted_where_a_run_must_repeat(deterministic):
    if importlib.util.find_spec(PLUGINS["cuda"]) is None:
        pytest.skip(f"the compiler for cuda is not installed ({PLUGINS['cuda']})")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCATTER.format(deterministic=deterministic)],
        env=os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert ("unique_indices=true" in done.stdout) == deterministic
    assert ("sort" in done.stdout.replace("indices_are_sorted", "")) == deterministic


# A convolution that TPUs' compiler makes as commands tell it to.
CONVOLUTION = """
import os
import jax
from jax.sharding import SingleDeviceSharding
from benchmarks import accelerators
from rvrt_jax import parallel
from rvrt_jax.ops.conv import conv2d

parallel.search_less_on_tpus()
place = SingleDeviceSharding(accelerators.topology("tpu", "v5e:2x2")[0])
shapes = (1, 16, 16, 8), (3, 3, 8, 8)
arguments = [jax.ShapeDtypeStruct(shape, "float32", sharding=place) for shape in shapes]
jax.jit(conv2d).trace(*arguments).lower(lowering_platforms=("tpu",)).compile()
print(os.environ["LIBTPU_INIT_ARGS"])
"""


def test_tpus_compiler_takes_what_it_is_told():
    if importlib.util.find_spec(PLUGINS["tpu"]) is None:
        pytest.skip(f"the compiler for tpu is not installed ({PLUGINS['tpu']})")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", CONVOLUTION],
        env=os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "xla_jf_convolution_performance_target" in done.stdout


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/nowhere")
    command_line.add_in_one_order()
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_dump_to=/nowhere",
        "--xla_gpu_deterministic_ops=true",
    ]
