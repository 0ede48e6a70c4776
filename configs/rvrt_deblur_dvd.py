"""RVRT for deblurring, trained on DVD (published model 004).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: DVD, 61 pairs of blurred and sharp clips, 16 frames of 256x256. Prepare them with
python -m rvrt_jax.data.prepare dvd --source DIR, and for eval.py dvd10 from the same DIR.
Validation: four training clips, held out.
Traps of the public training code, mended here: its preparation writes other names than its options
read, and expects all 71 clips, test clips included; every epoch has the same order; at step 30 000
it stops and must be started again; its last step is taken at the peak learning rate.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: DVD's 10 test clips, RGB: PSNR 34.30, SSIM 0.9655 (paper, table 7).
Restore: python eval.py --config configs/rvrt_deblur_dvd.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_deblur_dvd.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    data = common.as_published("dvd", num_frames=16, scale=1, degradation="given")
    return common.recipe(common.model("rvrt_deblur", remat=True), data, test_sets=("dvd10",))
