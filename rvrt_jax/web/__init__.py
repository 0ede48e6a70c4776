"""A page in the browser that restores films: `python -m rvrt_jax.web`."""
