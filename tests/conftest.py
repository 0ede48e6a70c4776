"""Settings every test runs under."""

import gc
import os
import signal
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs here run once or twice: compiling them takes longest, and a third less without LLVM's
# optimisation. `XLA_FLAGS= pytest` tests the programs that users run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Commands that are tested keep nothing in the user's folder of compiled programs.
os.environ.setdefault("RVRT_JAX_COMPILE_CACHE", "off")

import jax
import pytest
from absl import flags

from rvrt_jax.data import inventory
from rvrt_jax.ops import platforms

# A suite that nohup or a shell's background started would ignore what tests send to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A program compiled for a CPU takes dozens of memory mappings. Linux lets a process have 65,530,
# after which the compiler crashes.
MAPPINGS = 20_000

# Grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True, scope="session")
def own_inventories(tmp_path_factory):
    """What tests find in their folders is not noted in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("inventories")
        patch.setattr(inventory, "folder", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def for_cpus_alone():
    """Programs are traced for the CPUs that they run on, as commands do: it takes half the time."""
    with platforms.known_to_be("cpu"):
        yield


@pytest.fixture(autouse=True, scope="module")
def not_too_many_programs():
    """What earlier modules compiled is dropped where it takes too many memory mappings."""
    yield
    mappings = Path("/proc/self/maps")  # on Linux
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()
