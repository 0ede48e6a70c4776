"""The page: drop a video or images, choose, restore, compare, download."""

import os
import secrets

import gradio as gr
from gradio.themes import Default

from rvrt_jax.errors import UserError
from rvrt_jax.web import job

WAITING = 16  # requests that may wait; further ones are told to come later
SIZES = {"as the model gives it": None, "twice the input": "2", "as the input": "1"}
FONTS = ("system-ui", "sans-serif")  # none from the network


def build(kept: job.Files, limits: job.Limits) -> gr.Blocks:
    """Makes the page. kept: where the files of jobs lie."""

    def restore(files, model, sigma, start, frames, size, progress=gr.Progress()):  # noqa: B008
        folder = kept.root / "jobs" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        files = files or []
        count = limits.frames if frames is None else int(frames)
        request = job.Request(files, model, sigma, start or 0, count, SIZES[size])
        progress(0, desc="reading")

        def show(done, total):
            progress((done, total), desc="restoring", unit="frames")

        try:
            with kept.in_use(folder, *files):
                result = job.run(request, folder, limits, show)
        except (UserError, OSError) as error:
            raise gr.Error(str(error), duration=None) from error
        if result.frames < result.of:
            gr.Info(f"restored {result.frames} of the film's {result.of} frames", duration=None)
        return (str(result.before), str(result.after)), str(result.output)

    def show_sigma(model):
        return gr.update(visible=job.takes_noise_level(model))

    names = job.model_names()
    with gr.Blocks(title="rvrt_jax", analytics_enabled=False) as page:
        gr.Markdown(
            "# Restore a film\n"
            f"Up to {limits.megabytes} MB, {limits.frames} frames and {limits.pixels:,} pixels a "
            f"frame. Files are removed after {limits.kept_seconds // 60} minutes. "
            "`rvrt restore` on the command line has no limits."
        )
        with gr.Row():
            with gr.Column():
                files = gr.File(
                    label="A video, or images",
                    file_count="multiple",
                    elem_id="upload",
                )
                model = gr.Dropdown(names, value=names[0], label="Model", elem_id="model")
                sigma = gr.Slider(
                    0, 255, value=20, step=1, label="Noise level", visible=False, elem_id="sigma"
                )
                with gr.Row():
                    start = gr.Number(
                        0,
                        minimum=0,
                        label="Start: seconds, or number of the image",
                        elem_id="start",
                    )
                    frames = gr.Number(
                        min(100, limits.frames),
                        minimum=1,
                        precision=0,
                        label="Frames at most",
                        elem_id="frames",
                    )
                size = gr.Radio(list(SIZES), value=next(iter(SIZES)), label="Size", elem_id="size")
                button = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column():
                slider = gr.ImageSlider(
                    label="Before and after", type="filepath", elem_id="slider", interactive=False
                )
                output = gr.File(label="Download", elem_id="download", interactive=False)
        model.change(show_sigma, model, sigma, api_visibility="private")
        button.click(
            restore,
            [files, model, sigma, start, frames, size],
            [slider, output],
            api_visibility="private",
        )
    return page


def serve(kept: job.Files, limits: job.Limits, *, host: str, port: int) -> gr.Blocks:
    """Opens the page for requests, one job at a time; returns at once."""
    os.environ["GRADIO_TEMP_DIR"] = str(kept.root / "files")
    page = build(kept, limits)
    page.queue(default_concurrency_limit=1, max_size=WAITING)
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=limits.megabytes * 2**20,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=["gradio"],
        theme=Default(font=FONTS, font_mono=("monospace",)),
    )
    return page
