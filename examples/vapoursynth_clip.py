"""Gives `restored` for `clip`, in RGB24: each frame made from itself and two on either side."""

import numpy as np

import rvrt_jax

model, params = rvrt_jax.load("edvr_tiny")
before = [clip[0] * k + clip[:-k] for k in (2, 1)]
after = [clip[k:] + clip[-1] * k for k in (1, 2)]
large = clip.std.BlankClip(width=4 * clip.width, height=4 * clip.height)


def restored_frame(n, f):
    window = [np.stack([np.asarray(plane) for plane in frame], axis=-1) for frame in f[1:]]
    frame, values = f[0].copy(), rvrt_jax.restore(model, params, window)[2]
    for plane in range(3):
        np.asarray(frame[plane])[:] = np.clip(values[..., plane] * 255 + 0.5, 0, 255)
    return frame


restored = large.std.ModifyFrame([large, *before, clip, *after], restored_frame)
