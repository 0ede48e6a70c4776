"""How exactly matrix products and convolutions of float32 numbers are computed.

What accelerators do by default is not float32: NVIDIA GPUs round the factors to TF32 (10 bits),
TPUs to bfloat16 (7 bits). Here float32 means float32, unless the user chooses otherwise with
`jax_default_matmul_precision` (`--matmul_precision` of the commands). Parts whose errors grow on
their way, such as flow and sampling positions, are `EXACT` whatever is chosen.
"""

from typing import Any

import jax
import jax.numpy as jnp

EXACT = "float32"


def precision_of(dtype: jax.typing.DTypeLike) -> str | None:
    """Returns the precision of products of numbers of `dtype`; None leaves it to JAX's setting."""
    settings: Any = jax.config  # its attributes are made at run time
    chosen = settings.jax_default_matmul_precision is not None
    return None if chosen or dtype != jnp.float32 else EXACT
