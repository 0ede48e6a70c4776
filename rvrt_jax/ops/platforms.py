"""Forms of an operator for platforms, of which a program that is for one platform has one.

`jax.lax.platform_dependent` chooses when a program is compiled. By then JAX has traced and
differentiated every form, inside every loop and choice around it: half the time that a training
step takes before it is compiled. Who knows where a program is going to run says so here.
"""

from collections.abc import Callable
from typing import Any

import jax

GPUS = ("cuda", "rocm")

# JAX traces anew where it differs.
_known = jax.make_user_context(None)


def known_to_be(platform: str | None) -> Any:
    """Returns a context in which what is traced runs on "cpu", "cuda", "rocm" or "tpu" alone.

    None: on any.
    """
    return _known(platform)


def known() -> str | None:
    """Returns the platform that what is traced runs on; None where it is not known."""
    return _known.value


def of(device: Any) -> str:
    """Returns the name of a device's platform, as JAX's lowering has it; its own says "gpu"."""
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"


def choose(*arguments: Any, default: Callable[..., Any], **forms: Callable[..., Any]) -> Any:
    """Calls the form for the platform: now where it is known, else as `platform_dependent` does."""
    platform = known()
    if platform is None:
        return jax.lax.platform_dependent(*arguments, default=default, **forms)
    return forms.get(platform, default)(*arguments)
