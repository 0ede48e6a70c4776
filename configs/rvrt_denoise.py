"""RVRT for denoising, non-blind, trained on DAVIS (published model 006).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: DAVIS 2017, 90 clips, 16 frames of 256x256. Prepare them with
python -m rvrt_jax.data.prepare davis --source DIR. White noise of one sigma from 0 to 50 for each
clip, added last, neither clipped nor rounded, and sigma / 255 as a fourth input channel.
Validation: four of its clips, held out of training, sigma 30.
Traps of the public training code, mended here: its preparation writes other names than its options
read; every epoch has the same order; at step 30 000 it stops and must be started again; its last
step is taken at the peak learning rate.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: Set8, RGB, sigma 10 to 50: PSNR 37.53, 34.83, 33.30, 32.21, 31.33 (paper, table 9).
Restore: python eval.py --config configs/rvrt_denoise.py --weights FILE --sigma 20
--input DIR --output DIR
Train: python train.py --config configs/rvrt_denoise.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.recipe(
        common.model("rvrt_denoise", remat=True),
        common.as_published(
            "davis",
            num_frames=16,
            scale=1,
            degradation="noise",
        ),
        test_sets=("davis_test", "set8"),
    )
