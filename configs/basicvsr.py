"""BasicVSR for x4 super-resolution, trained on REDS with bicubic LR: a strong recurrent baseline.

Paper: Chan et al., "BasicVSR: The Search for Essential Components in Video Super-Resolution and
Beyond", CVPR 2021, arXiv 2012.02181.
Weights: python -m rvrt_jax.weights get basicvsr_reds4 (or basicvsr_vimeo_bi, basicvsr_vimeo_bd);
the name then stands for the file.
Data: REDS, 262 of its 270 clips: 000, 011, 015 and 020 are the test set REDS4 and are left out, and
REDSval4 is held out for validation, both as published. Prepare it with
python -m rvrt_jax.data.prepare reds --source DIR, and for eval.py reds4 from the same DIR.
Training values: those of the paper's section on settings as remembered, not read from a released
file: check them before you rely on them.
Hardware: published with a batch of 8; fewer devices with --config.accumulate.
Expected result: REDS4, RGB: PSNR 31.42, SSIM 0.8909 (paper, table 1; bicubic 26.14, 0.7292).
Restore: python eval.py --config configs/basicvsr.py --weights FILE --input DIR --output DIR
Train: python train.py --config configs/basicvsr.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    return common.recipe(
        common.model("basicvsr"),
        common.on_reds(num_frames=15),
        steps=300_000,
        lr=2e-4,
        flow_freeze_steps=5_000,
        flow_lr_multiplier=0.125,
        test_sets=("reds4",),
        published="BasicVSR",
    )
