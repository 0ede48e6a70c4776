"""Training: from a recipe to weights, stopping and resuming anywhere."""
