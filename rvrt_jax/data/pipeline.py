"""The training input: endless batches of {"lq", "gt"}, and the clips to validate on."""

import shutil
from typing import Any

import grain
import numpy as np

from rvrt_jax.data import blur, clips, corpus, workers
from rvrt_jax.data.corpus import Pair
from rvrt_jax.data.degrade import DEGRADATIONS, mod_crop
from rvrt_jax.data.options import BUNDLED, GIVEN, HELD_OUT, MOTION_BLUR, NOISE, NONE, DataOptions
from rvrt_jax.data.sampler import Sampler, mirrored, noisy, to_float
from rvrt_jax.errors import UserError

SAMPLES = 2**31  # of an epoch: training never sees its end


def train(
    options: DataOptions,
    *,
    seed: int,
    batch_size: int,
    shard_index: int = 0,
    shard_count: int = 1,
    start: int = 0,
    targets: slice = slice(None),
) -> grain.IterDataset:
    """Returns an endless dataset of batches; its iterators' state can be saved and restored.

    batch_size: of this shard. Shards of the same seed share no sample. start: how many batches to
    leave out. A batch depends on the seed and its number alone: over all shards it has the same
    samples whatever their count and the number of workers.
    targets: which frames of GT are wanted. Batches hold lq [b, t, gt_size/scale, gt_size/scale, c]
    and gt [b, t', gt_size, gt_size, 3], uint8 but for noisy lq, as `Sampler.map` says: a quarter of
    what float32 takes on its way from workers to devices.
    Raises UserError before the first batch if the data is missing or does not fit the options.
    """
    dataset = (
        grain.MapDataset.range(start * batch_size * shard_count, SAMPLES)[shard_index::shard_count]
        .map(Sampler(options, seed, targets))
        .batch(batch_size, drop_remainder=True)
    )
    if options.num_workers:
        # The threads of a worker make whole batches; more than one would only hold more of them.
        batches = max(1, options.prefetch // batch_size)
        begin = workers.prepare()  # makes room, too
        held = options.num_workers * (batches + 1)
        _check_shared_memory(options, held * batch_size * sample_bytes(options, targets))
        return dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        ).mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=options.num_workers, per_worker_buffer_size=batches
            ),
            worker_init_fn=begin,
        )
    return dataset.to_iter_dataset(
        grain.ReadOptions(
            num_threads=options.num_threads,
            prefetch_buffer_size=max(options.num_threads, options.prefetch // batch_size),
        )
    )


def sample_bytes(options: DataOptions, targets: slice = slice(None)) -> int:
    """Returns how large a sample is, with `targets` of its GT frames."""
    frames = options.sample_frames
    wanted = len(range(*targets.indices(frames)))
    lq = options.channels * (options.gt_size // options.scale) ** 2
    if options.degradation == NOISE:
        lq *= np.dtype(np.float32).itemsize
    return wanted * 3 * options.gt_size**2 + frames * lq


def _check_shared_memory(options: DataOptions, needed: int) -> None:
    """Raises UserError if the batches that workers hand over there do not fit /dev/shm."""
    if not workers.SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(workers.SHARED_MEMORY).free
    if needed > free:
        raise UserError(
            f"{workers.SHARED_MEMORY} has {free / 2**30:.2f} GiB free; {options.num_workers} "
            f"workers need up to {needed / 2**30:.2f} GiB there to hand over their batches. Give "
            "the container more (docker run --shm-size), or lower config.data.num_workers or "
            "config.data.prefetch."
        )


def validation(options: DataOptions) -> list[dict[str, Any]]:
    """Returns the clips to validate on, as [{"name", "lq", "gt"}].

    gt: uint8 [t, h, w, 3], cut to a multiple of the scale. lq: uint8 [t, h/scale, w/scale, 3], or,
    where noise is added, float32 [t, h, w, 4] with its level / 255 as the last channel.
    Raises UserError if the clips are missing or do not fit the options.
    """
    if options.validation_dataset == NONE:
        return []
    if options.validation_dataset == BUNDLED:
        if options.degradation == GIVEN:
            raise UserError(
                "the bundled clips have no degraded versions. Set data.validation_dataset to one "
                "that has, or to 'none'."
            )
        pairs = {name: (gt, None) for name, gt in clips.load_folders(clips.BUNDLED).items()}
        chosen = [
            (name, *pairs[name]) for name in corpus.evenly(list(pairs), options.validation_clips)
        ]
    else:
        found = (
            corpus.held_out(options)
            if options.validation_dataset == HELD_OUT
            else corpus.evenly(
                corpus.find(
                    options.validation_dataset,
                    options.validation_root,
                    options.validation_lq_root,
                    split="test",
                    options=options,
                ),
                options.validation_clips,
            )
        )
        chosen = [(pair.gt.name, *_read(pair, options)) for pair in found]
    return [
        {"name": name, **_finished(gt, lq, index, options)}
        for index, (name, gt, lq) in enumerate(chosen)
    ]


def _read(pair: Pair, options: DataOptions) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads the frames to validate on."""
    count = min(options.validation_frames or pair.gt.frames, pair.gt.frames)
    if pair.lq is not None:
        corpus.check_pair(pair.gt, pair.lq, options)
    return pair.gt.read(0, count), None if pair.lq is None else pair.lq.read(0, count)


def _finished(
    gt: np.ndarray, lq: np.ndarray | None, index: int, options: DataOptions
) -> dict[str, np.ndarray]:
    """Degrades, crops and mirrors a validation clip."""
    count, scale = options.validation_frames or len(gt), options.scale
    gt = mod_crop(gt[:count], scale)
    if options.degradation == MOTION_BLUR:
        # The same shake at every validation.
        lq, gt = blur.shaken(gt, np.random.default_rng(index), steps=options.blur_steps)
    elif lq is None:
        made = DEGRADATIONS.get(options.degradation)
        lq = gt if made is None else made(gt, scale)
    gt, lq = _centre(gt, lq, options)
    if options.mirror:
        gt, lq = mirrored(gt), mirrored(lq)
    if options.degradation == NOISE:
        # The same noise at every validation.
        lq = noisy(to_float(lq), options.validation_sigma, np.random.default_rng(index))
    return {"lq": lq, "gt": gt}


def _centre(gt: np.ndarray, lq: np.ndarray, options: DataOptions) -> tuple[np.ndarray, np.ndarray]:
    """Crops both to the square in the middle that the options ask for."""
    size, scale = options.validation_size, options.scale
    if not size:
        return gt, lq
    h, w = gt.shape[1:3]
    if min(h, w) < size:
        raise UserError(
            f"a validation clip is {w}x{h}; data.validation_size is {size}. Lower that."
        )
    y, x, n = (h - size) // 2 // scale, (w - size) // 2 // scale, size // scale
    gt = gt[:, y * scale : y * scale + size, x * scale : x * scale + size]
    return np.ascontiguousarray(gt), np.ascontiguousarray(lq[:, y : y + n, x : x + n])
