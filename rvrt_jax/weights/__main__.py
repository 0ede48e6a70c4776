"""Weights by name: `python -m rvrt_jax.weights list` and `python -m rvrt_jax.weights get NAME`."""

import sys

from rvrt_jax.weights.catalogue import main

sys.exit(main())
