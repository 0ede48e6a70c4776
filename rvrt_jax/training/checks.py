"""What must hold between the parts of a recipe before a run starts."""

from rvrt_jax.data.options import DataOptions
from rvrt_jax.errors import UserError
from rvrt_jax.models.contract import Network, in_channels


def check_input(options: DataOptions, model: Network) -> None:
    """Raises UserError if the samples that `options` describe do not fit the network."""
    if options.scale != model.scale:
        raise UserError(f"config.data.scale={options.scale}, but the network's is {model.scale}.")
    if options.channels != in_channels(model):
        raise UserError(
            f"config.data.degradation={options.degradation} gives {options.channels} channels; "
            f"the network takes {in_channels(model)} (noise levels are the fourth)."
        )
    frames = (
        f"config.data.num_frames={options.num_frames} gives samples of "
        f"{options.sample_frames} frames; the network takes "
    )
    if options.sample_frames % model.time_multiple:
        raise UserError(f"{frames}multiples of {model.time_multiple}.")
    if model.window not in (None, options.sample_frames):
        raise UserError(f"{frames}windows of {model.window}.")
    size = options.gt_size // options.scale
    if size % model.size_multiple:
        raise UserError(
            f"config.data.gt_size={options.gt_size} gives LQ of {size}x{size}; the network takes "
            f"multiples of {model.size_multiple}."
        )


def check_backward(frames: int, options: DataOptions, model: Network) -> None:
    """Raises UserError if the gradient cannot be taken through the last `frames` of a sample."""
    if not frames:
        return
    if model.window is not None:
        raise UserError(
            f"config.backward_frames={frames} has no effect: the network restores one frame of a "
            "window and carries nothing on. Set it to 0."
        )
    if frames > options.sample_frames or frames % model.time_multiple:
        raise UserError(
            f"config.backward_frames={frames}; give a multiple of {model.time_multiple} up to the "
            f"{options.sample_frames} frames of a sample, or 0 for all of them."
        )
