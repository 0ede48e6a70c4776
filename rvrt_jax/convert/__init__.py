"""PyTorch checkpoints and Flax parameters, both ways; numpy only."""
