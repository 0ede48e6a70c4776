"""Restores video: `python eval.py --config FILE --weights FILE --input PATH --output PATH`.

A path is a folder of images, a glob, or a video file; a folder of such folders is restored clip by
clip. With --gt it prints PSNR and SSIM. Set JAX_COMPILATION_CACHE_DIR to keep compiled programs.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, a file in configs/; its model's fields can be set: "
    "--config.model.attention=plain.", lock_config=True,
)  # fmt: skip
WEIGHTS = flags.DEFINE_string(
    "weights", None, "A .pth or .safetensors file, a checkpoint folder of a run, or a known name."
)
INPUT = flags.DEFINE_string("input", None, "Folder of images (or of clips), glob, or video file.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for PNG images, or video file.")
GT = flags.DEFINE_string("gt", None, "Ground truth, laid out as --input: prints PSNR and SSIM.")
TILE = flags.DEFINE_string(
    "tile", "auto", "T,H,W in frames and input pixels, 0 for a whole axis; none for the whole "
    "video at once; auto for the largest pieces that fit the free memory.",
)  # fmt: skip
OVERLAP = flags.DEFINE_string("overlap", "2,20,20", "Overlap of the tiles, T,H,W.")
SIGMA = flags.DEFINE_float("sigma", None, "Noise level, 0-255, for denoising models; 0 is valid.")
FPS = flags.DEFINE_string(
    "fps", None, "Frame rate of images that become a video, such as 24000/1001."
)
COMPARE = flags.DEFINE_string("compare", None, "PNG to write: input, restored, ground truth.")
JSON = flags.DEFINE_string("json", None, "File for the scores, times and settings.")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Computes in this type.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replaces outputs that exist.")


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        print(f"error: {argv[1]!r} is not a flag. Did you mean --{argv[1]}?", file=sys.stderr)
        return 1
    # Imported here so that --help and a wrong flag answer at once.
    from rvrt_jax import evaluation
    from rvrt_jax.errors import UserError

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        name, fields = evaluation.model_fields(CONFIG.value, dtype=DTYPE.value)
        evaluation.run(
            model_name=name,
            fields=fields,
            weights=required(WEIGHTS),
            source=required(INPUT),
            output=required(OUTPUT),
            gt=GT.value,
            picture=COMPARE.value,
            scores_file=JSON.value,
            options=evaluation.Options(
                tile=evaluation.parse_tile(TILE.value),
                overlap=evaluation.parse_triple(OVERLAP.value, "overlap"),
                sigma=SIGMA.value,
                fps=FPS.value,
            ),
            overwrite=OVERWRITE.value,
        )
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def required(flag: flags.FlagHolder) -> str:
    """Returns the value of a flag that has no default."""
    from rvrt_jax.errors import UserError

    if not flag.value:
        raise UserError(f"--{flag.name} is required: {flags.FLAGS[flag.name].help}")
    return flag.value


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; an unknown config key ends in one line instead of a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except AttributeError as error:
        if error.args and isinstance(error.args[0], KeyError):  # what a locked config raises
            message = str(error.args[0].args[0]).replace("\n", ": ")
            sys.exit(f"error: the config has no key {message}")
        raise
    except OSError as error:  # the config file
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
