"""RVRT for x4 super-resolution, fine-tuned on Vimeo-90K with BD LR (published model 003).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: Vimeo-90K septuplets; all 7 frames, followed by their mirror image, make a clip of 14.
LR is blurred by a Gaussian of sigma 1.6 and decimated.
Start: the weights of model 001, which --config.init_from names.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: Vimeo-90K-T PSNR-Y 38.59, SSIM-Y 0.9576; Vid4 29.54, 0.8810; UDM10 40.90, 0.9729
(paper, table 5).
Restore: python eval.py --config configs/rvrt_sr_vimeo_bd.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_sr_vimeo_bd.py
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
        "data/vimeo_septuplet", num_frames=7, degradation="blur_down", reverse_fraction=0.5
    )
    return config
