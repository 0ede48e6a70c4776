"""What a network promises to the rest of the package.

Restoration, training, weights and planning know networks by these names alone, never by their
class, so that a new network is one file here, one in `weights/` and one recipe. Networks are Linen
modules, and fit structurally: none inherits from these classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeGuard

from jax import Array

from rvrt_jax.ops import platforms

Size = tuple[int, int, int]  # (frames, height, width)
Params = Mapping[str, Any]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that may learn in a way of their own.

    name: as recipes spell it: `flow` has the options flow_freeze_steps and flow_lr_multiplier.
    key: the parameters are those with this text in a name on their path.
    """

    name: Literal["flow", "fusion", "dcn"]
    key: str


class Network(Protocol):
    """A network as `models.build` makes it, float [b, t, h, w, c] in [0, 1] in, RGB out.

    A dataclass: its fields are what recipes and checkpoints say of it (`models.fields`).

    dtype: of the matrix products.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    dtype: Any

    @property
    def scale(self) -> int:
        """Output size over input size."""
        ...

    @property
    def time_multiple(self) -> int:
        """What the number of frames must be a multiple of."""
        ...

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of."""
        ...

    @property
    def pad_multiple(self) -> int:
        """What inference pads whole frames to: `size_multiple` or the published choice."""
        ...

    @property
    def window(self) -> int | None:
        """How many frames go in for the one that comes out; None if as many come out as go in."""
        ...

    @property
    def centre(self) -> int:
        """The place in the window of the frame that comes out; 0 without a window."""
        ...

    @property
    def border(self) -> str | None:
        """The published rule for windows that reach beyond a clip (`restoration.sliding`).

        None without a window.
        """
        ...

    @property
    def takes_noise_level(self) -> bool:
        """Whether the input has a fourth channel, sigma / 255."""
        ...

    @property
    def compute_fields(self) -> tuple[str, ...]:
        """Names of the fields that change how the network computes, never what.

        The same parameters fit whatever their values.
        """
        ...

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Returns the groups that recipes can treat apart; what fits none is the rest."""
        ...

    def working_memory(self, call: Size) -> int:
        """Estimates the bytes that one call takes: frames, height and width of its input.

        With a window, the first number of `call` is the windows that are computed at once.
        """
        ...

    def example_size(self) -> Size:
        """Returns the smallest input from which all parameters can be made."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """Draws parameters, {"params": ...}, as Linen does."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs the network on [b, t, h, w, c], as Linen does.

        Networks without a window take `backward_frames` in training: with n above 0, all that is
        computed at frames before the last n is a constant to the gradient: their features and
        hidden states, the flows between two of them, and their output. Values stay the same. n is
        a multiple of `time_multiple`.
        """
        ...


class WindowNetwork(Network, Protocol):
    """A network with a window, whose two halves can be called apart by `apply(method=...)`."""

    def features(self, frames: Array) -> Any:
        """Returns what windows share of frames, [b, h, w, 3]: a pytree of arrays [b, ...]."""
        ...

    def fuse(self, pyramids: Any, middle: Array) -> Array:
        """Restores the middle frames of windows, [b, h, w, 3], from the features of all frames.

        pyramids: as `features` returns them, with the frames of the windows in front.
        """
        ...


def in_channels(model: Network) -> int:
    """Returns the channels of the input: RGB, and the noise level where the network takes it."""
    return 4 if model.takes_noise_level else 3


def slides(model: Network) -> TypeGuard[WindowNetwork]:
    """Returns whether the network restores the middle frame of a window."""
    return model.window is not None


def traced_for(device: Any) -> Any:
    """Returns a context in which networks are traced for a device's platform alone.

    It takes half the time that all forms of their operators would (`ops.platforms`).
    """
    return platforms.known_to_be(platforms.of(device))
