"""PreDeblur, the part of EDVR that sharpens single frames, trained by itself first.

Paper: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716. Settings: BasicSR's options, where nothing else is said.
Ours: all of it. The authors say that they trained PreDeblur as a small single-image deblurring
network with an output convolution and started EDVR from it, and published no more; the tail here
enlarges x4, so that it serves the networks for blurred LR frames too.
Data: REDS, as for the network that is to start from it: :deblur (default), :deblurcomp, :srblur.
Hardware: one GPU. Expected result: no published figure.
Train: python train.py --config configs/edvr_predeblur.py
Restore: python eval.py --config configs/edvr_predeblur.py --weights runs/edvr_predeblur
--input PATH --output PATH
"""

from ml_collections import ConfigDict

from configs import common

# Folder of blurred frames below data/REDS, scale.
TASKS = {
    "deblur": ("train_blur", 1),
    "deblurcomp": ("train_blur_comp", 1),
    "srblur": ("train_blur_bicubic/X4", 4),
}


def get_config(task: str = "deblur") -> ConfigDict:
    folder, scale = TASKS[task]
    return common.recipe(
        common.model("predeblur", num_feat=128, hr_in=scale == 1),
        common.reds_pairs(folder, num_frames=1, scale=scale),
        batch_size=32,
        steps=300_000,
        ema_decay=0.999,
    )
