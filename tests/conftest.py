"""Settings every test runs under."""

import os
import signal

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

# A suite that nohup or a shell's background started would ignore what tests send to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True, scope="session")
def own_inventories(tmp_path_factory):
    """What tests find in their folders is not noted in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("inventories")
        patch.setattr(inventory, "folder", lambda: folder)
        yield
