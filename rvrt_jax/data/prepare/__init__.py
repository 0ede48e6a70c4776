"""TFDS builders of the published data sets, without TensorFlow."""

from rvrt_jax.data.prepare.tfds_builder import Frames, make
from rvrt_jax.data.published import DATASETS

BUILDERS: dict[str, type[Frames]] = {name: make(name) for name in DATASETS}
