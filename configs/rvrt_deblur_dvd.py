"""RVRT for deblurring, trained on DVD (published model 004).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: DVD, 61 pairs of blurred and sharp clips.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: DVD's 10 test clips, RGB: PSNR 34.30, SSIM 0.9655 (paper, table 7).
Restore: python eval.py --config configs/rvrt_deblur_dvd.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_deblur_dvd.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.training()
    config.dataset = "dvd"
    config.model = common.model("rvrt_deblur")
    config.data = common.as_published("data/DVD", num_frames=16, scale=1)
    return config
