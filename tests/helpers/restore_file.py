"""Restores a file with a toy network, and prints the peak memory of its process in KiB.

Arguments: source, output, "windows" or "clips", and tile and overlap as JSON.
"""

import json
import resource
import sys

from helpers.toy import PARAMS, Slide, Toy

from rvrt_jax.media.frames import open_frames
from rvrt_jax.restoration.clip import OutputOptions, Stages, restore_clip
from rvrt_jax.restoration.settings import RestoreSettings

if __name__ == "__main__":
    source, output, network, tile, overlap = sys.argv[1:]
    model = Slide() if network == "windows" else Toy(scale=2, blur=True)
    params = {"gain": PARAMS["gain"] / 25} if network == "windows" else PARAMS
    settings = RestoreSettings(json.loads(tile), json.loads(overlap))
    with open_frames(source) as frames:
        restore_clip(
            Stages((model, params)), frames, output, settings, OutputOptions(), name="clip"
        )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
