"""RVRT for x4 super-resolution, fine-tuned on Vimeo-90K with bicubic LR (published model 002).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: Vimeo-90K septuplets; all 7 frames, followed by their mirror image, make a clip of 14.
Start: the weights of model 001, which --config.init_from names.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: Vimeo-90K-T PSNR-Y 38.15, SSIM-Y 0.9527; Vid4 27.99, 0.8462 (paper, table 5).
Restore: python eval.py --config configs/rvrt_sr_vimeo_bi.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_sr_vimeo_bi.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    config = common.training()
    config.dataset = "vimeo"
    config.init_from = "rvrt_sr_reds"
    config.steps = 300_000
    config.lr = 2e-4
    config.flow_freeze_steps = 0
    config.model = common.model("rvrt_sr")
    config.data = common.as_published(
        "data/vimeo_septuplet", num_frames=7, degradation="bicubic", reverse_fraction=0.5
    )
    return config
