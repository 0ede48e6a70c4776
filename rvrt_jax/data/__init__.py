"""Reading, degrading and feeding video. Imports no jax: worker processes load it."""
