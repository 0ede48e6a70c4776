"""Pure functions on one example; callers vmap. Imports jax and einops only."""
