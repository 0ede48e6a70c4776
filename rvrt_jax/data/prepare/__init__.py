"""Preparing data: published sets as TFDS data sets, real clips and photos as arrays."""
