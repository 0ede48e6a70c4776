"""Restores frames that OpenCV reads: python examples/opencv_frames.py clip.mp4 out/"""

import sys
from pathlib import Path

import cv2
import numpy as np

import rvrt_jax

target = Path(sys.argv[2])
target.mkdir(parents=True, exist_ok=True)
capture = cv2.VideoCapture(sys.argv[1])
frames = []
while (read := capture.read())[0]:
    frames.append(read[1][..., ::-1])  # OpenCV has BGR
model, params = rvrt_jax.load("edvr_tiny")
restored = rvrt_jax.restore(model, params, frames)
for index, frame in enumerate(np.clip(restored * 255 + 0.5, 0, 255).astype(np.uint8)):
    cv2.imwrite(str(target / f"{index:05}.png"), frame[..., ::-1])
