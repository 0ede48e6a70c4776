"""`python -m rvrt_jax.cli` is the command `rvrt`."""

from rvrt_jax.cli import main

main()
