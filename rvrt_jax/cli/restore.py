"""`rvrt restore INPUT... OUTPUT`: restores videos, folders of images, or folders of either."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from rvrt_jax.errors import UserError, exit_code, stopped_by_sigterm
from rvrt_jax.weights import catalogue

DEFAULT = "edvr_tiny"


_OPTIONS = [
    click.option(
        "--model", "models", multiple=True, metavar="NAME",
        help=f"Weights: a name of the list below, a .pth or .safetensors file, or a training run. "
        f"Default: {DEFAULT}, which comes with the package. With --preview several times.",
    ),
    click.option("--stage2", metavar="NAME", help="Weights that restore the first ones' result."),
    click.option("--config", metavar="RECIPE", help="The model's fields are a recipe's."),
    click.option("--sigma", type=float, help="Noise level, 0-255, for denoising models."),
    click.option("--scale", metavar="N", help="Output size over input size, reduced from the "
                 "model's: 2 for twice."),
    click.option("--height", type=int, help="Height of the output, reduced from the model's."),
    click.option("--width", type=int, help="Width of the output, reduced from the model's."),
    click.option("--start", metavar="TIME", help="Begin there: 12.5 (s), 1:02:03, or 300f."),
    click.option("--frames", type=int, metavar="N", help="Restore N frames at most."),
    click.option("--preview", type=float, metavar="SECONDS",
                 help="Restore so much with every --model, side by side: a video and a picture."),
    click.option("--scene_cuts", "--scene-cuts", type=click.Choice(["auto", "off"]),
                 default="auto", show_default=True,
                 help="Restore each scene by itself; off: the video is one, as published."),
    click.option("--tile", default="auto", show_default=True, metavar="T,H,W",
                 help="Frames, height and width of a piece; 0 for whole; none for all at once."),
    click.option("--overlap", default="2,20,20", show_default=True, metavar="T,H,W",
                 help="What pieces share."),
    click.option("--ensemble", type=click.Choice(["1", "4", "8"]), default="1",
                 help="The mean over 4 flipped runs, or 8 with transposed ones."),
    click.option("--border", type=click.Choice(
        ["replicate", "reflection", "reflection_circle", "circle"]),
        help="What stands in beyond the ends of a clip, for EDVR."),
    click.option("--quantise", is_flag=True, help="Round to 8 bits between two stages."),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Compute in it."),
    click.option("--matmul_precision", "--matmul-precision", type=click.Choice(["float32", "tf32"]),
                 help="Of float32 products; tf32 is faster on GPUs and TPUs, and less exact."),
    click.option("--compile_cache", "--compile-cache", metavar="DIR",
                 help="Folder of compiled programs; off: none.  [default: in the user's cache]"),
    click.option("--fps", metavar="RATE", help="Of images that become a video: 25, 24000/1001."),
    click.option("--codec", metavar="NAME",
                 help="Encoder: h264, hevc, av1, vp9, prores or ffv1, which is lossless in .mkv."),
    click.option("--crf", type=int, help="Quality of the encoder, less is better.  [default: 15]"),
    click.option("--pix_fmt", "--pix-fmt", metavar="FORMAT",
                 help="Pixel format, as FFmpeg names it; by default one that keeps what there is."),
    click.option("--deinterlace", is_flag=True,
                 help="Make whole pictures of the frames that a video calls interlaced."),
    click.option("--damaged", type=click.Choice(["error", "skip"]), default="error",
                 help="skip: leave out what cannot be decoded of a broken video."),
    click.option("--gt", metavar="PATH", help="Ground truth, laid out as INPUT: prints scores."),
    click.option("--metrics", metavar="NAMES",
                 help="What to score, of psnr,ssim,lpips,warp.  [default: psnr,ssim]"),
    click.option("--compare", metavar="PNG", help="Picture to write: input, restored, truth."),
    click.option("--json", "scores", metavar="FILE", help="File for scores, times and settings."),
    click.option("--one_by_one", "--one-by-one", is_flag=True,
                 help="The images of a folder belong to no clip: each is restored by itself."),
    click.option("--skip_done", "--skip-done", is_flag=True,
                 help="Leave clips out whose output is there."),
    click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    click.option("--journal/--no-journal", default=True, show_default=True,
                 help="Keep finished segments beside the output until it is complete, to go on "
                 "after an interruption."),
]  # fmt: skip


class _Restore(click.Command):
    """A command whose help ends with the list of models."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Models"):
            formatter.write_dl(list(catalogue.MODELS.items()))


def _with_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(cls=_Restore)
@click.argument("paths", nargs=-1, required=True, metavar="INPUT... OUTPUT")
@_with_options
def restore(paths: tuple[str, ...], **options: Any) -> None:
    """Restore INPUT into OUTPUT.

    INPUT is a video, a folder of images, a pattern, or a folder of videos or of such folders;
    several are written below OUTPUT. OUTPUT is a video if its name ends like one, else a folder of
    PNG images. Stopped, however, the same command goes on where it was.
    """
    with stopped_by_sigterm():
        code = exit_code(lambda: _restore(list(paths), **options))
    sys.exit(code)


def _restore(paths: list[str], *, models: tuple[str, ...], **options: Any) -> None:
    if len(paths) < 2:
        raise UserError(f"only one path is given, {paths[0]}; give an input and an output.")
    *sources, output = paths
    names = list(models) or [DEFAULT]
    print(f"restoring {', '.join(sources)} with {', '.join(names)}", file=sys.stderr, flush=True)
    # Imported here so that the first line comes at once.
    from rvrt_jax import command_line, parallel
    from rvrt_jax.evaluation import files as evaluation
    from rvrt_jax.evaluation.clips import ReadOptions
    from rvrt_jax.restoration.clip import OutputOptions
    from rvrt_jax.restoration.settings import RestoreSettings

    command_line.keep_programs(options["compile_cache"])
    parallel.search_less_on_tpus()
    if options["matmul_precision"]:
        parallel.choose_matmul_precision(options["matmul_precision"])
    name, fields = evaluation.model_fields(_recipe(options["config"]), dtype=options["dtype"])
    settings = RestoreSettings(
        tile=evaluation.parse_tile(options["tile"]),
        overlap=evaluation.parse_triple(options["overlap"], "overlap"),
        sigma=options["sigma"],
        border=options["border"],
        ensemble=int(options["ensemble"]),
        quantise=options["quantise"],
    )
    reading = ReadOptions(
        options["fps"],
        options["damaged"],
        options["start"],
        options["frames"],
        options["deinterlace"],
    )
    encoder = {key: options[key] for key in ("codec", "crf", "pix_fmt") if options[key] is not None}
    writing = OutputOptions(
        fps=options["fps"],
        overwrite=options["overwrite"],
        journal=options["journal"],
        scene_cuts=options["scene_cuts"],
        deinterlaced=options["deinterlace"],
        encoder=encoder,
        scale=options["scale"],
        height=options["height"],
        width=options["width"],
    )
    if options["preview"] is not None:
        from rvrt_jax.evaluation import preview

        preview.run(sources, output, names, settings, reading, writing, seconds=options["preview"])
        return
    if len(names) > 1:
        raise UserError(f"{len(names)} models are given; several go with --preview.")
    report = evaluation.run(
        model_name=name,
        fields=fields,
        weights=names[0],
        stage2=options["stage2"],
        sources=sources,
        output=output,
        gt=options["gt"],
        picture=options["compare"],
        scores_file=options["scores"],
        settings=settings,
        reading=reading,
        options=writing,
        one_by_one=options["one_by_one"],
        skip_done=options["skip_done"],
        metrics=options["metrics"].split(",") if options["metrics"] else None,
    )
    if len(report["clips"]) > 1:
        print(f"{len(report['clips'])} clips are written to {output}", file=sys.stderr)


def _recipe(name: str | None) -> Any:
    """Returns the ConfigDict of a recipe, a file or the name of one of configs/; None without."""
    if name is None:
        return None
    from rvrt_jax.command_line import recipe_file

    path, _, argument = recipe_file(name).partition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise UserError(f"there is no recipe {name!r}: it is neither a file nor one of configs/.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()
