"""Begins an output and keeps it unfinished, until it is killed: PATH, then file or folder."""

import sys
import time

from rvrt_jax import files

if __name__ == "__main__":
    with files.replacing(sys.argv[1], folder=sys.argv[2] == "folder"):
        print("ready", flush=True)
        time.sleep(100)
