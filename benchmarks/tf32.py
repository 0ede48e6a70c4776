"""What `--matmul_precision=tf32` costs in PSNR, on a machine that has no TF32.

    python benchmarks/tf32.py                     # every network at hand, on the bundled clips
    python benchmarks/tf32.py --tasks sr

An NVIDIA GPU rounds both factors of a TF32 product to 10 bits of mantissa and sums in float32. The
same is done here with `lax.reduce_precision` before every product and convolution that does not
name a precision of its own; flow, sampling positions and other exact parts do name it. Speed is
not measured: this is slower.
"""

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax import lax

from rvrt_jax import parallel
from rvrt_jax.errors import UserError
from rvrt_jax.evaluation import bundled, metrics
from rvrt_jax.media.frames import to_uint
from rvrt_jax.restoration.restore import restore
from rvrt_jax.weights import load as loading

EXPONENT_BITS, MANTISSA_BITS = 8, 10
# What the networks multiply with (nothing else: see the calls in models/ and ops/).
PRODUCTS = ((lax, "dot_general"), (lax, "conv_general_dilated"), (jnp, "einsum"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Score networks with products rounded as in TF32.")
    parser.add_argument("--tasks", nargs="+", default=list(bundled.TASKS), choices=bundled.TASKS)
    parser.add_argument("--results", type=Path, default=measure.RESULTS)
    args = parser.parse_args()
    rows = []
    for task in (bundled.TASKS[key] for key in args.tasks):
        for weights in task.networks:
            try:
                model, params = loading.load(weights)
            except (UserError, FileNotFoundError) as error:
                print(f"without {weights}: {error}")
                continue
            for clip in bundled.clips():
                rows.append(one(task, clip, weights, model, params))
                measure.print_table(rows[-1:])
    measure.print_table(rows)
    measure.write("tf32", {"rows": rows}, args.results)


def one(task: bundled.Task, clip: str, weights: str, model: Any, params: Any) -> dict[str, Any]:
    """Returns the row of a network and a clip."""
    posed = bundled.pose(task, clip)
    run = functools.partial(restore, model, params, posed.lq, sigma=task.sigma)
    exact = as_uint8(run())
    with rounded() as count:
        rough = as_uint8(run())
    if not count:
        raise RuntimeError("no product was rounded: the program was not traced anew.")
    before, after = (
        metrics.mean([metrics.frame_scores(*pair) for pair in zip(made, posed.truth, strict=True)])
        for made in (exact, rough)
    )
    return {
        "task": task.key,
        "model": weights,
        "clip": clip,
        "PSNR": round(before["psnr_rgb"], 4),
        "with_tf32": round(after["psnr_rgb"], 4),
        "cost_dB": round(before["psnr_rgb"] - after["psnr_rgb"], 4),
        "pixels_changed": round(float(np.mean(exact != rough)), 4),
        "products_rounded": len(count),
    }


def as_uint8(frames: np.ndarray) -> np.ndarray:
    return frames if frames.dtype == np.uint8 else to_uint(frames, 8)


@contextlib.contextmanager
def rounded() -> Iterator[list[str]]:
    """Rounds the factors of products that leave their precision open; yields what was rounded."""
    names: list[str] = []

    def rounding(exact: Callable) -> Callable:
        def product(*args: Any, precision: Any = None, **options: Any) -> jax.Array:
            if precision is None:
                names.append(exact.__name__)
                args = tuple(_round(arg) for arg in args)
            return exact(*args, precision=precision, **options)

        return product

    chosen: Any = jax.config.values["jax_default_matmul_precision"]
    with contextlib.ExitStack() as stack:
        for module, name in PRODUCTS:
            product = rounding(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, product))
        parallel.choose_matmul_precision("tf32")
        jax.clear_caches()
        yield names
    jax.config.update("jax_default_matmul_precision", chosen)
    jax.clear_caches()


def _round(x: Any) -> Any:
    if not isinstance(x, jax.Array | np.ndarray) or x.dtype != jnp.float32:
        return x
    return lax.reduce_precision(x, EXPONENT_BITS, MANTISSA_BITS)


if __name__ == "__main__":
    main()
