"""Restores video: `python eval.py --config FILE --weights FILE --input PATH --output PATH`.

A path is a folder of images, a glob, or a video file; a folder of such folders is restored clip by
clip. With --gt it prints PSNR and SSIM. Without --input it runs the config's test sets by the
published protocol and prints the table beside the published numbers:
`python eval.py --config FILE --weights FILE --data FOLDER_OF_TEST_SETS`.
"""

from pathlib import Path
from typing import Literal, cast

from absl import app, flags
from ml_collections import config_flags

from rvrt_jax import command_line
from rvrt_jax.errors import UserError, exit_code, stopped_by_sigterm

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, a file in configs/; its model's fields can be set: "
    "--config.model.attention=plain.", lock_config=True,
)  # fmt: skip
WEIGHTS = flags.DEFINE_string(
    "weights", None, "A .pth or .safetensors file, a checkpoint folder of a run, or a known name."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Of a run: last (default), best by its validation, or a step's number."
)
INPUT = flags.DEFINE_string("input", None, "Folder of images (or of clips), glob, or video file.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for PNG images, or video file; of test sets the folder for the scores, "
    "results/<name of the config> by default.",
)  # fmt: skip
GT = flags.DEFINE_string("gt", None, "Ground truth, laid out as --input: prints PSNR and SSIM.")
TILE = flags.DEFINE_string(
    "tile", "auto", "T,H,W in frames (of models with a window, EDVR: windows computed at once) and "
    "input pixels, 0 for a whole axis; none for the whole video at once; auto for the largest "
    "pieces that fit the free memory. Test sets are tiled as published unless this is given.",
)  # fmt: skip
OVERLAP = flags.DEFINE_string(
    "overlap", "2,20,20", "Overlap of the tiles, T,H,W, of test sets as published unless given."
)
SIGMA = flags.DEFINE_float("sigma", None, "Noise level, 0-255, for denoising models; 0 is valid.")
BORDER = flags.DEFINE_enum(
    "border", None, ["replicate", "reflection", "reflection_circle", "circle"],
    "Which frames stand in beyond the clip's ends, for models with a window (EDVR); default: the "
    "published rule of the model.",
)  # fmt: skip
ENSEMBLE = flags.DEFINE_integer(
    "ensemble", 1, "4: the mean over flipped runs; 8: and over transposed ones."
)
STAGE2 = flags.DEFINE_string(
    "stage2", None, "Weights of a second model, which restores the first one's result."
)
QUANTISE = flags.DEFINE_bool(
    "quantise", False, "Rounds to 8 bits between the stages, as published."
)
FPS = flags.DEFINE_string(
    "fps", None, "Frame rate of images that become a video, such as 24000/1001."
)
COMPARE = flags.DEFINE_string("compare", None, "PNG to write: input, restored, ground truth.")
JSON = flags.DEFINE_string("json", None, "File for the scores, times and settings.")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Computes in this type.")
MATMUL_PRECISION = flags.DEFINE_enum(
    "matmul_precision", None, ["float32", "tf32"],
    "Of float32 products; tf32 is faster on GPUs and TPUs, and less exact. Default: float32.",
)  # fmt: skip
COMPILE_CACHE = flags.DEFINE_string("compile_cache", None, command_line.COMPILE_CACHE)
DAMAGED = flags.DEFINE_enum(
    "damaged", "error", ["error", "skip"],
    "A broken video ends in an error, or what cannot be decoded is left out.",
)  # fmt: skip
SETS = flags.DEFINE_list("sets", None, "Test sets to run, instead of the config's: reds4,vid4_bi.")
DATA = flags.DEFINE_string("data", "data", "Folder of the test sets, prepared or as images.")
DEGRADE = flags.DEFINE_bool(
    "degrade", False, "Makes a test set's missing input of its ground truth, by the set's own "
    "degradation.",
)  # fmt: skip
NOISE = flags.DEFINE_string(
    "noise", None, "Folder with CLIP.npy, standard normal noise [t, 3, h, w], for the denoising "
    "test sets; without it noise is drawn from seed 0.",
)  # fmt: skip
METRICS = flags.DEFINE_list(
    "metrics", None, "What to score, of psnr,ssim,lpips,warp. Default: psnr,ssim and on test sets "
    "warp, the warping error. LPIPS needs its weights: python -m rvrt_jax.weights get lpips_alex.",
)  # fmt: skip
TEMPORAL = flags.DEFINE_bool(
    "temporal", True, "Test sets without --metrics: measures the warping error too."
)
SKIP_DONE = flags.DEFINE_bool("skip_done", False, "Leaves clips out whose output is there.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replaces outputs that exist.")


def main(argv: list[str]) -> int:
    command_line.check_rest(argv)
    with stopped_by_sigterm():
        return exit_code(_run)


def _run() -> None:
    from rvrt_jax import parallel

    command_line.keep_programs(COMPILE_CACHE.value)
    parallel.search_less_on_tpus()
    if MATMUL_PRECISION.value:
        parallel.choose_matmul_precision(MATMUL_PRECISION.value)
    sets = SETS.value or (CONFIG.value is not None and CONFIG.value.get("test_sets"))
    if INPUT.value is None and sets:
        _run_test_sets(list(sets))
    else:
        _restore()


def _restore() -> None:
    """Restores --input."""
    # Imported here so that --help and a wrong flag answer at once.
    from rvrt_jax.evaluation import files as evaluation
    from rvrt_jax.evaluation.clips import ReadOptions
    from rvrt_jax.restoration.clip import OutputOptions
    from rvrt_jax.restoration.settings import RestoreSettings

    name, fields = evaluation.model_fields(CONFIG.value, dtype=DTYPE.value)
    evaluation.run(
        model_name=name,
        fields=fields,
        weights=required(WEIGHTS),
        checkpoint=_checkpoint(),
        stage2=STAGE2.value,
        sources=[required(INPUT)],
        output=required(OUTPUT),
        gt=GT.value,
        picture=COMPARE.value,
        scores_file=JSON.value,
        settings=RestoreSettings(
            tile=evaluation.parse_tile(TILE.value),
            overlap=evaluation.parse_triple(OVERLAP.value, "overlap"),
            sigma=SIGMA.value,
            border=BORDER.value,
            ensemble=ENSEMBLE.value,
            quantise=QUANTISE.value,
        ),
        reading=ReadOptions(FPS.value, cast(Literal["error", "skip"], DAMAGED.value)),
        options=OutputOptions(fps=FPS.value, overwrite=OVERWRITE.value),
        skip_done=SKIP_DONE.value,
        metrics=METRICS.value,
    )


def _run_test_sets(sets: list[str]) -> None:
    """Runs test sets by the published protocol."""
    from rvrt_jax import files
    from rvrt_jax.evaluation import files as evaluation
    from rvrt_jax.evaluation import protocol
    from rvrt_jax.evaluation import report as reports
    from rvrt_jax.restoration.settings import RestoreSettings
    from rvrt_jax.weights import load as loading

    own = (GT, COMPARE, JSON, FPS, SIGMA, STAGE2, QUANTISE, DAMAGED)
    given = [flag.name for flag in own if flags.FLAGS[flag.name].present]
    if given:
        raise UserError(f"--{', --'.join(given)} goes with --input, not with test sets.")
    config = CONFIG.value
    name, fields = evaluation.model_fields(config, dtype=DTYPE.value)
    label = "all" if config is None else command_line.config_name()
    output = Path(OUTPUT.value or Path("results") / label)
    outputs = [output / file for file in reports.FILES]
    files.check_outputs(outputs, inputs=[], overwrite=OVERWRITE.value)
    tile = evaluation.parse_tile(TILE.value) if flags.FLAGS["tile"].present else "published"
    cut = flags.FLAGS["tile"].present or flags.FLAGS["overlap"].present
    overlap = evaluation.parse_triple(OVERLAP.value, "overlap") if cut else None
    loaded = loading.load_described(required(WEIGHTS), name, step=_checkpoint(), **fields)
    default = ("psnr", "ssim", "warp") if TEMPORAL.value else ("psnr", "ssim")
    protocol.run(
        loaded.model,
        loaded.params,
        sets,
        protocol.ProtocolOptions(
            Path(DATA.value),
            RestoreSettings(tile, overlap, border=BORDER.value, ensemble=ENSEMBLE.value),
            degrade=DEGRADE.value,
            noise=Path(NOISE.value) if NOISE.value else None,
            metrics=tuple(METRICS.value or default),
        ),
        output=output,
        published=None if config is None else config.get("published"),
        about={
            "model": loading.config(loaded.model),
            "weights": str(WEIGHTS.value),
            "licence": loaded.license,
        },
    )


def _checkpoint() -> int | str | None:
    """Returns what --checkpoint says, a step as a number."""
    value = CHECKPOINT.value
    if value not in (None, "best", "last") and not value.isdigit():
        raise UserError(f"--checkpoint={value}; give last, best or a step's number.")
    return int(value) if value and value.isdigit() else value


def required(flag: flags.FlagHolder) -> str:
    """Returns the value of a flag that has no default."""
    if not flag.value:
        raise UserError(f"--{flag.name} is required: {flags.FLAGS[flag.name].help}")
    return flag.value


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags)
