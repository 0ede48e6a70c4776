"""RVRT for deblurring, trained on GoPro (published model 005).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: GoPro, 22 pairs of blurred and sharp clips (the blur without gamma).
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: GoPro's 11 test clips, RGB: PSNR 34.92, SSIM 0.9738 (paper, table 8).
Restore: python eval.py --config configs/rvrt_deblur_gopro.py --weights FILE
--input DIR --output DIR
Train: python train.py --config configs/rvrt_deblur_gopro.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.training()
    config.dataset = "gopro"
    config.model = common.model("rvrt_deblur")
    config.data = common.as_published("data/GoPro", num_frames=16, scale=1)
    return config
