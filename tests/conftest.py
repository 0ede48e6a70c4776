"""Settings every test runs under."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from absl import flags

jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_numpy_rank_promotion", "allow")

# Grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()
