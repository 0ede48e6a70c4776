"""RVRT for x4 super-resolution, fine-tuned on Vimeo-90K with bicubic LR (published model 002).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: Vimeo-90K septuplets; all 7 frames, followed by their mirror image, make a clip of 14.
Prepare them with python -m rvrt_jax.data.prepare vimeo --source DIR.
LR is made during training.
Traps of the public training code, mended here: its options ask for -1 frames, which crashes, and
for a copy of all seven GT frames, of which its script writes the fourth alone; every epoch has the
same order; its last step is taken at the peak learning rate.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: Vimeo-90K-T PSNR-Y 38.15, SSIM-Y 0.9527; Vid4 27.99, 0.8462 (paper, table 5).
Start: the weights of model 001, which python -m rvrt_jax.weights get rvrt_sr_reds fetches;
--config.init_from names others.
Restore: python eval.py --config configs/rvrt_sr_vimeo_bi.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_sr_vimeo_bi.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.rvrt_on_vimeo("bicubic", test_sets=("vimeo_bi", "vid4_bi"))
