"""RVRT for deblurring, trained on GoPro (published model 005).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: GoPro, 22 pairs of blurred (without gamma) and sharp clips, 16 frames of 256x256. Prepare them
with python -m rvrt_jax.data.prepare gopro --source DIR, and for eval.py gopro11 from the same DIR.
Validation: four training clips, held out.
Traps of the public training code, mended here: its preparation writes other names than its options
read; every epoch has the same order; at step 30 000 it stops and must be started again; its last
step is taken at the peak learning rate.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: GoPro's 11 test clips, RGB: PSNR 34.92, SSIM 0.9738 (paper, table 8).
Restore: python eval.py --config configs/rvrt_deblur_gopro.py --weights FILE
--input DIR --output DIR
Train: python train.py --config configs/rvrt_deblur_gopro.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    data = common.as_published("gopro", num_frames=16, scale=1, degradation="given")
    return common.recipe(common.model("rvrt_deblur", remat=True), data, test_sets=("gopro11",))
