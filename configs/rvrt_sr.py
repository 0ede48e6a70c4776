"""RVRT for x4 super-resolution, trained on REDS with bicubic LR (published model 001).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: REDS, 266 of its 270 clips: 000, 011, 015 and 020 are the test set REDS4 and are left out (the
public training code leaves them in).
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: REDS4, RGB: PSNR 32.75, SSIM 0.9113 (paper, table 5; bicubic 26.14, 0.7292).
Restore: python eval.py --config configs/rvrt_sr.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_sr.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.training()
    config.dataset = "reds"
    config.model = common.model("rvrt_sr", remat=True)
    config.data = common.as_published(
        "data/REDS", num_frames=30, exclude=("000", "011", "015", "020")
    )
    return config
