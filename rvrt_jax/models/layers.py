"""Small layers that several networks share. Features are [b, h, w, c] or [b, t, h, w, c]."""

import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax import traverse_util
from jax import Array

from rvrt_jax.errors import UserError
from rvrt_jax.ops.conv import conv2d
from rvrt_jax.ops.precision import precision_of

Dtype = Any

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.1)

# PyTorch's default for convolutions: uniform in +-1/sqrt(fan_in).
conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
linear_init = nn.initializers.truncated_normal(0.02)
# Residual convolutions start at a tenth of He's standard deviation: 30 blocks are nearly identity.
residual_init = nn.initializers.variance_scaling(2 * 0.1**2, "fan_in", "normal")


class Conv(nn.Module):
    """A 2-D convolution per frame, zero padded so that stride 1 keeps the size.

    x: [..., h, w, in] with any leading axes. Returns [..., h/stride, w/stride, features].
    `random_bias`: biases start as PyTorch's do, uniform in +-1/sqrt(fan_in), instead of at 0.
    `precision`: of the products; None: as `ops.precision` says.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    kernel_init: nn.initializers.Initializer = conv_init
    random_bias: bool = False
    dtype: Dtype = jnp.float32
    precision: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        bias_init = self._uniform_bias(shape) if self.random_bias else nn.initializers.zeros
        bias = self.param("bias", bias_init, (self.features,)).astype(self.dtype)
        lead, x = x.shape[:-3], x.reshape(-1, *x.shape[-3:]).astype(self.dtype)
        y = conv2d(x, kernel, stride=self.stride, groups=self.groups, precision=self.precision)
        return (y + bias[None, None, None]).reshape(*lead, *y.shape[1:])

    def _uniform_bias(self, shape: tuple[int, ...]) -> nn.initializers.Initializer:
        bound = math.prod(shape[:3]) ** -0.5
        return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
            key, shape, dtype, -bound, bound
        )


class ResidualBlock(nn.Module):
    """`x + conv2(relu(conv1(x)))`, without normalisation. x: [..., h, w, c]."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, x.shape[-1], kernel_init=residual_init, dtype=self.dtype)
        return x + conv(name="conv2")(nn.relu(conv(name="conv1")(x)))


def dense(x: Array, kernel: Array, *_: Any, precision: Any = None, **options: Any) -> Array:
    """Multiplies [..., in] by a kernel [in, out]; can be the `dot_general` of `nn.Dense`.

    The other axes become one: of several, XLA would turn an array before the product that is the
    kernel's gradient, and CPUs take twice as long for that product then.
    """
    rows = x.reshape(-1, x.shape[-1])
    y = jax.lax.dot(rows, kernel, precision=precision or precision_of(x.dtype), **options)
    return y.reshape(*x.shape[:-1], -1)


class Linear(nn.Dense):
    """A dense layer with the transformers' initialisation."""

    kernel_init: nn.initializers.Initializer = linear_init
    dot_general: Any = dense


class Mlp(nn.Module):
    """Linear, exact GELU, linear back to the input's width."""

    hidden: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = Linear(self.hidden, dtype=self.dtype, name="fc1")(x)
        y = nn.gelu(y.astype(jnp.float32), approximate=False).astype(self.dtype)
        return Linear(x.shape[-1], dtype=self.dtype, name="fc2")(y)


def layer_norm(name: str, dtype: Dtype) -> nn.LayerNorm:
    """Returns PyTorch's LayerNorm (eps 1e-5); its statistics are float32 whatever `dtype`."""
    # In two passes, which GPUs' compiler joins into one kernel; the other takes fewer on a CPU.
    fast = dtype == jnp.float32
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=fast, name=name)


def mean_and_max_length(vectors: Array) -> Array:
    """Returns the mean and the largest length of vectors [..., 2], float32 [2]; no gradient."""
    squares = jnp.sum(jax.lax.stop_gradient(vectors).astype(jnp.float32) ** 2, axis=-1)
    length = jnp.sqrt(squares)
    return jnp.stack([jnp.mean(length), jnp.max(length)])


# What the backward pass need not recompute: nothing is kept, or results of matrix products are.
REMAT_POLICIES = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


Remat = bool | str  # False, True ("nothing"), or the name of a policy


def remat_choice(remat: bool, policy: str) -> Remat:
    """Returns the policy where `remat` is on; raises UserError for one that does not exist."""
    if policy not in REMAT_POLICIES:
        raise UserError(f"remat_policy is {policy!r}; choose from {sorted(REMAT_POLICIES)}.")
    return policy if remat else False


JOINED = 16  # the most that were joined


class Prepared(NamedTuple):
    """What the steps of a loop compute with, made once before it (`prepare`).

    exact: collections of variables, "params" among them, in the types that gradients are added up
    in. cast: the same, in the types that steps take.
    """

    exact: Any
    cast: Any

    def of(self, name: str) -> "Prepared":
        """Returns the part of one submodule."""
        exact, cast = (
            {key: tree[name] for key, tree in part.items() if name in tree} for part in self
        )
        return Prepared(exact, cast)

    def only(self, *names: str) -> "Prepared":
        """Returns the parts of some submodules, with their names."""
        return Prepared(
            *(
                {key: {n: tree[n] for n in names if n in tree} for key, tree in part.items()}
                for part in self
            )
        )


def prepare(variables: Mapping[str, Any], dtype: Dtype, *, exact: Collection[str] = ()) -> Prepared:
    """Casts variables as matrix products and convolutions of `dtype` take them.

    variables: "params", of which kernels and their biases are cast, and others, cast as a whole.
    exact: names of modules that compute in float32, whose variables are left as they are.
    """
    flat = traverse_util.flatten_dict(variables)
    to_cast = {
        path: jnp.asarray(x)
        for path, x in flat.items()
        if path[0] != "params" or ((*path[:-1], "kernel") in flat and path[-2] not in exact)
    }
    cast = traverse_util.unflatten_dict({**flat, **_cast_together(to_cast, dtype)})
    return Prepared(variables, jax.lax.stop_gradient(cast))


def _cast_together(arrays: dict[tuple, Array], dtype: Dtype) -> dict[tuple, Array]:
    """Casts arrays so that GPUs' compiler makes a kernel for many of them, not one for each.

    It joins operations of one shape that share an operand: here, a zero that is made of one of
    them in a way that the compiler does not see through, whatever numbers are in it. Of more than
    `JOINED` operations it would make the zero first, and join nothing.
    """
    found, of_shape = {}, {}
    for path, x in arrays.items():
        of_shape.setdefault(x.shape, []).append((path, x))
    for same in of_shape.values():
        for start in range(0, len(same), JOINED):
            joined = same[start : start + JOINED]
            first = joined[0][1]
            one = first[(slice(0, 1),) * first.ndim]
            zero = (jnp.isnan(one) & (one == 0)).astype(first.dtype)
            found |= {path: (x + zero).astype(dtype) for path, x in joined}
    return found


def map_scan(
    module: nn.Module,
    body,
    xs,
    *,
    remat: Remat = False,
    constant: int = 0,
    prepared: Prepared | None = None,
) -> Any:
    """Applies `body(module, x)` along the first axis of `xs`, one entry at a time.

    So memory does not grow with the clip. remat: recompute intermediate values in the backward
    pass instead of keeping them. constant, prepared: as in `scan`.
    """

    def step(module: nn.Module, _, x):
        return (), body(module, x)

    return scan(module, step, (), xs, remat=remat, constant=constant, prepared=prepared)[1]


def scan(
    module: nn.Module,
    body,
    carry,
    xs,
    *,
    remat: Remat = False,
    constant: int = 0,
    prepared: Prepared | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` of `body(module, carry, x) -> (carry, y)`, which may use the module's parameters.

    Returns (carry, ys). remat: as in `map_scan`. constant: what the first so many steps return is
    constant to the gradient, or the last -constant ones; nothing is kept of them for it. prepared:
    the module's variables in the form that all steps share; None: as they are. reverse: the first
    step takes the last entry of `xs`.
    """
    if module.is_initializing():
        return _one_step(module, body, carry, xs)
    unbound, variables = module.unbind()
    apply: Any = unbound.apply
    exact, cast = prepared or Prepared({"params": variables.get("params", {})}, None)

    def loop(exact, carry, xs):
        of_step = _one_gradient(exact, cast) if prepared else lambda: exact

        def step(carry, x):
            return apply(of_step(), carry, x, method=body)

        return jax.lax.scan(_rematerialised(step, remat), carry, xs, reverse=reverse)

    if not constant:
        return loop(exact, carry, xs)
    place = -constant if reverse else constant  # of the seam
    early, late = slice(None, place), slice(place, None)
    parts = (late, early) if reverse else (early, late)
    found = []
    for part, still in zip(parts, (constant > 0, constant < 0), strict=True):
        arguments = exact, carry, jax.tree.map(lambda x, part=part: x[part], xs)
        carry, y = loop(*(jax.lax.stop_gradient(arguments) if still else arguments))
        found.append(y)
    before, after = reversed(found) if reverse else found
    return carry, jax.tree.map(lambda x, y: jnp.concatenate([x, y]), before, after)


def _one_gradient(exact: Any, cast: Any) -> Callable[[], Any]:
    """Returns what hands each step of a loop `cast`; the gradient is that of `exact`, in its type.

    To the loop's backward pass `exact` is one long vector, so that accelerators add up a step's
    gradients by one operation, not by one for each parameter.
    """
    leaves, tree = jax.tree.flatten(exact)
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

    def of_step() -> Any:
        parts = jax.lax.split(flat, [leaf.size for leaf in leaves])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.map(_instead, jax.tree.unflatten(tree, shaped), cast)

    return of_step


@jax.custom_jvp
def _instead(exact: Array, cast: Array) -> Array:
    return cast


@_instead.defjvp
def _instead_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]):
    return primals[1], tangents[0].astype(primals[1].dtype)


def _rematerialised(step, remat: Remat):
    """Returns the function; with `remat`, its backward pass recomputes intermediate values."""
    if not remat:
        return step
    policy = REMAT_POLICIES["nothing" if remat is True else remat]
    return jax.checkpoint(step, prevent_cse=False, policy=policy)


def _one_step(module: nn.Module, body, carry, xs):
    """Makes the parameters of `body`, and results of the right shapes, without a loop.

    A loop is traced three times as long, and there is nothing to loop over: of `init`, parameters
    alone are kept. They are those that the loop would draw.
    """
    steps = len(jax.tree.leaves(xs)[0])
    carry, y = body(module, carry, jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), xs))
    return carry, jax.tree.map(lambda y: jnp.broadcast_to(y, (steps, *y.shape)), y)


def to_clips(x: Array, n: int) -> Array:
    """Cuts [b, t, ...] into clips of n frames, clips first: [t/n, b, n, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, n, *x.shape[2:]), 1, 0)


def from_clips(x: Array) -> Array:
    """Inverts `to_clips`: [k, b, n, ...] -> [b, k n, ...]."""
    return rearrange(x, "k b n ... -> b (k n) ...")
