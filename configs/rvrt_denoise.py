"""RVRT for denoising, non-blind, trained on DAVIS (published model 006).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: DAVIS 2017, 90 clips; white noise of one sigma from 0 to 50 for each clip, neither clipped
nor rounded, and sigma / 255 as a fourth input channel.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: Set8, RGB, sigma 10 to 50: PSNR 37.53, 34.83, 33.30, 32.21, 31.33 (paper, table 9).
Restore: python eval.py --config configs/rvrt_denoise.py --weights FILE
--input DIR --output DIR --sigma 20
Train: python train.py --config configs/rvrt_denoise.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.training()
    config.dataset = "davis"
    config.model = common.model("rvrt_denoise")
    config.data = common.as_published("data/DAVIS", num_frames=16, scale=1)
    return config
