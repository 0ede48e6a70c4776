"""Samples of noise, as worker processes make them too; loads no JAX."""

import time

import grain
import numpy as np

from rvrt_jax.data import workers


class Noise(grain.transforms.Map):
    """Sample number `index`: smooth random frames, GT and every fourth pixel of it."""

    def __init__(self, seed: int):
        self.seed = seed

    def map(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        gt = rng.random((2, 4, 4, 3), np.float32).repeat(8, axis=1).repeat(8, axis=2)
        return {"lq": gt[:, ::4, ::4].copy(), "gt": gt}


class Slow(Noise):
    """The same, a tenth of a second each."""

    def map(self, index: int) -> dict[str, np.ndarray]:
        time.sleep(0.1)
        return super().map(index)


def train(
    options, *, seed, batch_size, shard_index=0, shard_count=1, start=0, targets=None
) -> grain.IterDataset:
    """Stands in for `pipeline.train`; a root called "2 workers" gives so many processes."""
    first = start * batch_size * shard_count
    samples = grain.MapDataset.range(first, 2**20)[shard_index::shard_count].map(Noise(seed))
    batches = samples.batch(batch_size).to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )
    count, _, kind = options.root.partition(" ")
    if kind != "workers":
        return batches
    several = grain.MultiprocessingOptions(num_workers=int(count), per_worker_buffer_size=1)
    return batches.mp_prefetch(several, worker_init_fn=workers.prepare())
