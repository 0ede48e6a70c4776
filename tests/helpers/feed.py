"""A program that makes batches in two workers and then waits: prints its token and their pids."""

import multiprocessing
import time

import grain
import numpy as np

from rvrt_jax.data import workers


def sample(index: int) -> np.ndarray:
    return np.full((2**20,), index, np.float32)


if __name__ == "__main__":
    begin = workers.prepare()
    dataset = grain.MapDataset.range(1000).map(sample).to_iter_dataset()
    iterator = iter(
        dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=2, per_worker_buffer_size=2),
            worker_init_fn=begin,
        )
    )
    next(iterator)
    next(iterator)
    pids = [child.pid for child in multiprocessing.active_children()]
    print(begin.args[0], *pids, flush=True)
    time.sleep(600)
