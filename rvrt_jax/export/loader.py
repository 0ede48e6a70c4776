"""Runs a network that `rvrt export` wrote to a `.rvrt` file.

Needs jax, numpy and flatbuffers, which jax.export reads files with; nothing of rvrt_jax. The file
itself holds this program, so that it can be run:

    python out.rvrt video.npy restored.npy

and be used from Python:

    network = runpy.run_path("out.rvrt")["load"]("out.rvrt")
    restored = network(video)   # float32, the shape that network.header["input"] says
"""

import json
import sys
import zipfile

import jax
import jax.export
import numpy as np

FORMAT = 1
_DTYPES = {"F32": np.float32}


class Network:
    """A network of one fixed size. header: what header.json says."""

    def __init__(self, header: dict, program: bytes, weights: dict):
        self.header = header
        self._weights = jax.device_put(weights)
        self._call = jax.jit(jax.export.deserialize(bytearray(program)).call)

    def __call__(self, video: np.ndarray) -> np.ndarray:
        """Restores a video, float32 of the shape that the header says; RGB in [0, 1]."""
        shape = tuple(self.header["input"]["shape"])
        if video.shape != shape or video.dtype != np.float32:
            raise ValueError(
                f"the video is {video.dtype} {video.shape}; this program takes float32 {shape}. "
                "Export the network for your size, or cut the video into pieces of this one."
            )
        return np.asarray(self._call(self._weights, video))


def load(path: str) -> Network:
    """Reads a `.rvrt` file. Raises ValueError for another file or a newer format."""
    try:
        with zipfile.ZipFile(path) as file:
            header = json.loads(file.read("header.json"))
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}, but this program reads {FORMAT}")
            program, weights = file.read("program.stablehlo"), file.read("weights.safetensors")
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a .rvrt file that this program reads: {error}.") from error
    return Network(header, program, read_safetensors(weights))


def read_safetensors(data: bytes) -> dict:
    """Returns the arrays of a safetensors file: 8 bytes of length, a JSON header, the numbers."""
    start = 8 + int.from_bytes(data[:8], "little")
    arrays = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            values = np.frombuffer(data[begin:end], _DTYPES[entry["dtype"]])
            arrays[name] = values.reshape(entry["shape"])
    return arrays


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} VIDEO.npy RESTORED.npy")
    np.save(sys.argv[2], load(sys.argv[0])(np.load(sys.argv[1])))
