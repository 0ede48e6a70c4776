"""A small RVRT that removes motion blur, which a CPU can train.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022; a third of its width, windows of a quarter of its area, half of its branches' blocks,
features of half the frames' size. A linear filter along the camera's motion, as far as the shutter
was open, sharpens first, and the network corrects its frames (`rvrt_jax.models.beside`).
Data: real clips and photos from public packages (python -m rvrt_jax.data.prepare real --output
data/real). Blur: 9 to 17 of 17 moments of a virtual camera that pans and shakes before a photo or
a clip, averaged in linear light, and up to 5 neighbouring frames of the clips. Validation: two of
the clips, held out of training, as a shaking camera sees them.
Hardware: 1 CPU core, or any one GPU.
Expected result: see rvrt_jax/assets/rvrt_deblur_small.md and docs/training_small.md.
Command: python train.py --config configs/rvrt_deblur_small.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    network = common.small_rvrt(upscale=1, feature_stride=2, along_motion=True, num_feat=40)
    data = common.held_out(
        num_frames=6,
        gt_size=80,
        scale=1,
        degradation="motion_blur",
        max_speed=8.0,
        photo_fraction=0.7,
        camera_fraction=0.85,
    )
    return common.small_same_size(
        network,
        data,
        steps=250,
        lr=3e-4,
        batch_size=1,
        loss_eps=1e-3,
        ema_decay=0.99,
        eval_every=50,
    )
