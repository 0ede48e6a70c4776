"""Small layers that several networks share. Features are [b, h, w, c] or [b, t, h, w, c]."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
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


def _dot_general(x: Array, kernel: Array, dimensions: Any, **options: Any) -> Array:
    options["precision"] = options.get("precision") or precision_of(x.dtype)
    return jax.lax.dot_general(x, kernel, dimensions, **options)


class Linear(nn.Dense):
    """A dense layer with the transformers' initialisation."""

    kernel_init: nn.initializers.Initializer = linear_init
    dot_general: Any = _dot_general


class Mlp(nn.Module):
    """Linear, exact GELU, linear back to the input's width."""

    hidden: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.gelu(Linear(self.hidden, dtype=self.dtype, name="fc1")(x), approximate=False)
        return Linear(x.shape[-1], dtype=self.dtype, name="fc2")(y)


def layer_norm(name: str, dtype: Dtype) -> nn.LayerNorm:
    """Returns PyTorch's LayerNorm (eps 1e-5); its statistics are float32 whatever `dtype`."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


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


def rematerialised(body, remat: Remat):
    """Returns the method; with `remat`, its backward pass recomputes intermediate values."""
    if not remat:
        return body
    policy = REMAT_POLICIES["nothing" if remat is True else remat]
    return nn.remat(body, prevent_cse=False, policy=policy)


def map_scan(module: nn.Module, body, xs, *, remat: Remat = False, constant: int = 0):
    """Applies `body(module, x)` along the first axis of `xs`, one entry at a time.

    So memory does not grow with the clip. remat: recompute intermediate values in the backward
    pass instead of keeping them. constant: as in `scan`.
    """

    def step(module: nn.Module, _, x):
        return (), body(module, x)

    return scan(module, step, (), xs, remat=remat, constant=constant)[1]


def scan(module: nn.Module, body, carry, xs, *, remat: Remat = False, constant: int = 0):
    """`lax.scan` of `body(module, carry, x) -> (carry, y)`, which may use the module's parameters.

    Returns (carry, ys). remat: as in `map_scan`. constant: what the first so many steps return is
    constant to the gradient, or the last -constant ones; nothing is kept of them for it.
    """
    if module.is_initializing():
        return _one_step(module, body, carry, xs)
    loop = nn.scan(
        rematerialised(body, remat),
        variable_broadcast="params",
        split_rngs={"params": False},
        check_constancy_invariants=False,  # it traces the body twice, and only `init` needs it
    )
    if not constant:
        return loop(module, carry, xs)

    def call(module: nn.Module, carry, xs):
        return loop(module, *jax.lax.stop_gradient((carry, xs)))

    without_gradient = nn.map_variables(call, "params", jax.lax.stop_gradient)
    first, second = (
        jax.tree.map(lambda x, part=part: x[part], xs)
        for part in (slice(None, constant), slice(constant, None))
    )
    calls = (without_gradient, loop) if constant > 0 else (loop, without_gradient)
    carry, before = calls[0](module, carry, first)
    carry, after = calls[1](module, carry, second)
    return carry, jax.tree.map(lambda x, y: jnp.concatenate([x, y]), before, after)


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
