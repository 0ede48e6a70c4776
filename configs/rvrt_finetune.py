"""RVRT fine-tuned on your own clips: pairs of clean and degraded ones, or clean ones alone.

Paper: Liang et al., "Recurrent Video Restoration Transformer with Guided Deformable Attention",
NeurIPS 2022, arXiv 2206.02146.
Data: any folders of images or video files, as they are; a folder of such folders is several clips.
Cut videos where scenes change. Pairs have the same names in --config.data.root and
--config.data.lq_root; without lq_root the degraded frames are made of the clean ones.
Validation: none, until --config.data.validation_dataset=own and its validation_root name a folder
of other clips (with pairs also validation_lq_root).
Start: published weights, which python -m rvrt_jax.weights get rvrt_sr_reds fetches (for :deblur
rvrt_deblur_gopro, for :denoise rvrt_denoise_davis); --config.init_from names others.
Hardware: one GPU with batch 1 or more; crops of 256 pixels and 16 frames as in the paper need the
memory of published training, so these are smaller.
Expected result: depends on the clips; no published figure.
Clean clips alone, x4: python train.py --config configs/rvrt_finetune.py --config.data.root=DIR
Pairs, x4: add --config.data.lq_root=DIR --config.data.degradation=given
Other tasks: --config configs/rvrt_finetune.py:deblur (always with pairs) or :denoise (clean clips
alone); python train.py --config configs/rvrt_finetune.py is :sr.
"""

from ml_collections import ConfigDict

from configs import common

# Model, weights to start from, scale, how LQ comes about.
TASKS = {
    "sr": ("rvrt_sr", "rvrt_sr_reds", 4, "bicubic"),
    "deblur": ("rvrt_deblur", "rvrt_deblur_gopro", 1, "given"),
    "denoise": ("rvrt_denoise", "rvrt_denoise_davis", 1, "noise"),
}


def get_config(task: str = "sr") -> ConfigDict:
    if task not in TASKS:
        raise SystemExit(f"error: there is no task {task!r}; choose from {', '.join(TASKS)}.")
    model, weights, scale, degradation = TASKS[task]
    data = common.as_published(
        "own",
        root="data/own",
        num_frames=8,
        gt_size=128 if scale == 1 else 192,
        scale=scale,
        degradation=degradation,
        num_workers=2,
        validation_dataset="none",
    )
    return common.recipe(
        common.model(model, remat=True),
        data,
        init_from=weights,
        batch_size=1,
        steps=20_000,
        lr=5e-5,
        flow_freeze_steps=0,
        clip_norm=1.0,
        log_every=20,
        eval_every=1_000,
        save_every=500,
    )
