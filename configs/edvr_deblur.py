"""EDVR-L for deblurring, trained on REDS.

Paper: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716. Settings: BasicSR's options, where nothing else is said.
Data: REDS, 5 frames of 256x256: unpack train_sharp.zip and
train_blur.zip of
https://seungjunnah.github.io/Datasets/reds.html below data/REDS, as plain folders of clips.
Start: PreDeblur, trained first (configs/edvr_predeblur.py), without which users report far worse
results; then stages a, without TSA, and b, the default, from the last weights of a.
Ours: this training was never published beyond that; the settings are EDVR-L's for clean frames.
REDS4, on which the published networks were scored, is left out, and four more clips are held out
for validation: 232 clips.
Hardware: as EDVR-L; fewer devices with --config.accumulate, at the same batch.
Expected result: REDS4, RGB: PSNR 34.80, SSIM 0.9487 (BasicSR's model zoo).
Weights: python -m rvrt_jax.weights get edvr_l_deblur says how to get them.
Restore: python eval.py --config configs/edvr_deblur.py --weights FILE --input PATH --output PATH
Train: python train.py --config configs/edvr_deblur.py:a --config.init_from PREDEBLUR_RUN
then: python train.py --config configs/edvr_deblur.py --config.init_from runs/edvr_deblur_a
"""

from ml_collections import ConfigDict

from configs import common


def get_config(stage: str = "b") -> ConfigDict:
    return common.edvr_on_blurred_reds("edvr_l_deblur", stage, "train_blur", scale=1)
