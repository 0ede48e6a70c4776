"""Weights: names, files and training runs become a model with its parameters."""
