"""The second stage of EDVR, which restores the first one's output once more, trained on REDS.

Paper: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716. Settings: BasicSR's options, where nothing else is said.
Ours: all but the network. The training of the second stage was never published; users who ran the
first stage without flips report 35.71 dB for deblurring instead of 36.37.
Data: REDS, 5 frames of 256x256, and what the first stage makes of its training clips, as images:
python eval.py --weights FIRST --input data/REDS/train_blur --output data/REDS/stage1_deblur
--ensemble 4. Likewise for :deblurcomp (train_blur_comp to stage1_deblurcomp), :srblur
(train_blur_bicubic/X4) and :sr (train_sharp_bicubic/X4), whose network has no PreDeblur.
Hardware: as EDVR-L; fewer devices with --config.accumulate, at the same batch.
Expected result: REDS4, deblurring, RGB: PSNR 36.37 (as users report of the published weights).
Train: python train.py --config configs/edvr_stage2.py
Restore: python eval.py --weights FIRST --stage2 FILE --quantise --ensemble 4
--input PATH --output PATH
"""

from ml_collections import ConfigDict

from configs import common

# Of the first stage: its result is what the second one starts from.
TASKS = {
    "deblur": "edvr_stage2",
    "deblurcomp": "edvr_stage2",
    "srblur": "edvr_stage2",
    "sr": "edvr_sr_stage2",
}


def get_config(task: str = "deblur") -> ConfigDict:
    network = common.model(TASKS[task], remat=True)
    return common.edvr("a", network, common.reds_pairs(f"stage1_{task}", num_frames=5, scale=1))
