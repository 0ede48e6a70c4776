"""RVRT for x4 super-resolution, fine-tuned on Vimeo-90K with BD LR (published model 003).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: Vimeo-90K septuplets; all 7 frames, followed by their mirror image, make a clip of 14.
Prepare them with python -m rvrt_jax.data.prepare vimeo --source DIR.
LR is blurred by a Gaussian of sigma 1.6 and decimated; it is made during training.
Traps of the public training code, mended here: its options ask for -1 frames, which crashes, and
for a copy of all seven GT frames, of which its script writes the fourth alone; every epoch has the
same order; its last step is taken at the peak learning rate.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: Vimeo-90K-T PSNR-Y 38.59, SSIM-Y 0.9576; Vid4 29.54, 0.8810; UDM10 40.90, 0.9729
(paper, table 5).
Start: the weights of model 001, which python -m rvrt_jax.weights get rvrt_sr_reds fetches;
--config.init_from names others.
Restore: python eval.py --config configs/rvrt_sr_vimeo_bd.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_sr_vimeo_bd.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.rvrt_on_vimeo("blur_down", test_sets=("vimeo_bd", "vid4_bd", "udm10"))
