"""EDVR-L for x4 super-resolution with windows of 7 frames, trained on Vimeo-90K with bicubic LR.

Paper: Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks",
CVPRW 2019, arXiv 1905.02716. Settings: BasicSR's options, where nothing else is said.
Data: Vimeo-90K septuplets, whose middle frame is the target. Prepare them with
python -m rvrt_jax.data.prepare vimeo --source DIR.
Ours: no options for this training were published; these are EDVR-L's for REDS.
Hardware: as EDVR-L; fewer devices with --config.accumulate, at the same batch.
Expected result: Vid4, Y: PSNR 27.35, SSIM 0.8264 (BasicSR's model zoo); Vimeo-90K-T, Y: 37.61,
0.9489 (as later papers quote it).
Weights: python -m rvrt_jax.weights get edvr_l_vimeo says how to get them.
Restore: python eval.py --config configs/edvr_l_vimeo.py --weights FILE --input PATH --output PATH
Train: python train.py --config configs/edvr_l_vimeo.py:a
then: python train.py --config configs/edvr_l_vimeo.py --config.init_from runs/edvr_l_vimeo_a
"""

from ml_collections import ConfigDict

from configs import common


def get_config(stage: str = "b") -> ConfigDict:
    data = common.as_published(
        "vimeo",
        num_frames=7,
        validation_clips=20,
        validation_frames=7,
    )
    network = common.model("edvr_l_vimeo", with_tsa=stage == "b", remat=True)
    return common.edvr(stage, network, data, test_sets=("vimeo_bi", "vid4_bi"))
