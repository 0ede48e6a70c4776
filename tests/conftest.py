"""Settings every test runs under."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs here run once or twice: compiling them takes longest, and a third less without LLVM's
# optimisation. `XLA_FLAGS= pytest` tests the programs that users run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Commands that are tested keep nothing in the user's folder of compiled programs.
os.environ.setdefault("RVRT_JAX_COMPILE_CACHE", "off")

import jax
from absl import flags

jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()
