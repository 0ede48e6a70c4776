"""Video restoration with recurrent transformers in JAX.

The stable names: `build`, `from_state_dict`, `load_pth`, `load`, `restore`. They are imported when
first used, so that the input pipeline's worker processes, which import only rvrt_jax.data, never
load JAX.
"""

import importlib

_HOMES = {
    "build": "rvrt_jax.models",
    "from_state_dict": "rvrt_jax.weights.load",
    "load": "rvrt_jax.weights.load",
    "load_pth": "rvrt_jax.weights.load",
    "restore": "rvrt_jax.restoration.restore",
}

__all__ = ["build", "from_state_dict", "load", "load_pth", "restore"]  # noqa: F822


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'rvrt_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
