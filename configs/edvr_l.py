"""EDVR-L for x4 super-resolution, trained on REDS with bicubic LR.

Paper: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716. Settings: BasicSR's options, where nothing else is said.
Data: REDS, 5 frames of 256x256 (LR 64x64), LR made during training. Prepare it with
python -m rvrt_jax.data.prepare reds --source DIR, and for eval.py reds4 from the same DIR.
Validation: REDSval4, four training clips, held out.
Stages: first a, without TSA; then b, the default, from the last weights of a.
Hardware: published with 8 GPUs of 4 windows each; fewer with --config.accumulate, same batch.
Ours: the average of the weights has a short memory at first. The authors also started deep networks
from shallower ones (--config.init_from with --config.init_partial does that), and lowered
--config.dcn_lr_multiplier where offsets exploded.
Expected result: REDS4, RGB: PSNR 31.09, SSIM 0.8800 (BasicSR's model zoo; from these settings
alone mmagic reports 31.05, 0.8793).
Weights: python -m rvrt_jax.weights get edvr_l_reds says how to get them.
Restore: python eval.py --config configs/edvr_l.py --weights FILE --input PATH --output PATH
Train: python train.py --config configs/edvr_l.py:a
then: python train.py --config configs/edvr_l.py --config.init_from runs/edvr_l_a
"""

from ml_collections import ConfigDict

from configs import common


def get_config(stage: str = "b") -> ConfigDict:
    return common.edvr_on_reds("edvr_l", stage, remat=True)
