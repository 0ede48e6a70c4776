"""Convert a checkpoint: python -m rvrt_jax.convert IN OUT.

An entry point above the package: it needs the models, to check every key and shape.
"""

import argparse
import json
import sys

import ml_dtypes
import numpy as np

from rvrt_jax.errors import exit_code
from rvrt_jax.weights import families, mapping, state_dict
from rvrt_jax.weights import load as loading

_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

_EPILOG = """
IN is a .pth, a .safetensors, a training run's folder, or a name from `python -m rvrt_jax.weights
list`. OUT ends in .safetensors (published keys, with the model's config, the licence and the source
in the metadata) or .pth (for torch.load and load_state_dict). The published RVRT weights are
CC-BY-NC-4.0, not for commercial use, and so is what is converted from them: say so with
--license CC-BY-NC-4.0.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rvrt_jax.convert", description="Convert a checkpoint.", epilog=_EPILOG
    )
    parser.add_argument("input", metavar="IN")
    parser.add_argument("output", metavar="OUT")
    parser.add_argument("--name", help="model or variant; default: what the file says or shows")
    parser.add_argument(
        "--fields", type=_object, default={}, help="fields of the model that differ, as JSON"
    )
    parser.add_argument("--license", help="of the weights; default: what IN says, or unknown")
    parser.add_argument("--source", help="of the weights, in words; default: what IN says")
    parser.add_argument("--entry", help="which state dict of a .pth: params, params_ema, ...")
    parser.add_argument("--step", type=int, help="which checkpoint of a run; default: the last")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the stored numbers")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _convert(arguments))


def _object(text: str) -> dict:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise argparse.ArgumentTypeError(f'{text} is not a JSON object such as {{"num_feat": 32}}')
    return fields


def _convert(arguments: argparse.Namespace) -> None:
    loaded = loading.load_described(
        arguments.input,
        arguments.name,
        entry=arguments.entry,
        step=arguments.step,
        **arguments.fields,
    )
    config = loading.config(loaded.model)
    arrays = loading.to_state_dict(loaded.model, loaded.params)
    keeps_terms = arguments.output.endswith(".safetensors")
    if keeps_terms:
        arrays = mapping.without_buffers(families.table(config["name"], config), arrays)
    arrays = {
        key: array.astype(_DTYPES[arguments.dtype]) if array.dtype == np.float32 else array
        for key, array in arrays.items()
    }
    license = arguments.license or loaded.license
    source = arguments.source or loaded.source
    state_dict.write(arguments.output, state_dict.Checkpoint(arrays, config, license, source))
    print(f"{arguments.output}: {config['name']}, {len(arrays)} arrays, licence {license}")
    if keeps_terms and license == "unknown":
        print(
            "The licence of these weights is not known. If they are the published RVRT's, it is "
            "CC-BY-NC-4.0; say so with --license.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
