"""The arithmetic of a step, counted in its program as traced.

A compiler's own count takes the body of a loop once, and our networks are loops over frames. So the
products are counted here, a loop's as often as it runs; what is recomputed in the backward pass
counts again, as the device does it again.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def count(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns the floating-point operations of matrix products and convolutions in a call.

    A multiplication and an addition are two. Of a function over several devices those of one count.
    A loop without a known length counts once, of a condition the most costly branch. A function
    that has been called with such arguments is not traced again.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr: Any) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * terms
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / outputs
    if name == "cond":
        return max(_of(branch.jaxpr) for branch in params["branches"])
    inner = sum(_of(jaxpr) for value in params.values() for jaxpr in _programs(value))
    return inner * params.get("length", 1) if name == "scan" else inner


def _programs(value: Any) -> list[Any]:
    """Returns the programs in a parameter of an equation."""
    if hasattr(value, "eqns"):
        return [value]
    if hasattr(value, "jaxpr"):
        return [value.jaxpr]
    return [one for item in value for one in _programs(item)] if isinstance(value, tuple) else []
