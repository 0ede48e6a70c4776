"""RVRT for x4 super-resolution, trained on REDS with bicubic LR (published model 001).

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: REDS, 30 frames of 256x256 (LR 64x64), LR made during training. Prepare it with
python -m rvrt_jax.data.prepare reds --source DIR, and for eval.py reds4 from the same DIR.
Traps of the public training code, mended here: it trains on the test clips REDS4 (000, 011, 015,
020; the options' name for the set keeps them in); every epoch has the same order; at step 30 000 it
stops and must be started again; its last step is taken at the peak learning rate, where this
schedule stays at its floor.
Ours: REDSval4 is held out for validation, so 262 of the 270 clips are used.
Hardware: published with 8 GPUs, one clip each; fewer with --config.accumulate, at the same batch.
Expected result: REDS4, RGB: PSNR 32.75, SSIM 0.9113 (paper, table 5; bicubic 26.14, 0.7292).
Restore: python eval.py --config configs/rvrt_sr.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/rvrt_sr.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.recipe(
        common.model("rvrt_sr", remat=True),
        common.on_reds(num_frames=30),
        test_sets=("reds4",),
    )
