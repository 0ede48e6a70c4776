"""Restoring video of any size and length with any of the networks."""
