"""A branch of RVRT: walks over the clips, aligns each to what came before it, and refines it.

Source: Liang et al., RVRT, NeurIPS 2022, arXiv 2206.02146, section 3.1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from rvrt_jax.models.layers import Prepared, Remat, scan
from rvrt_jax.ops import platforms


class Branch(nn.Module):
    """One recurrent branch: align, then refine, clip after clip in propagation order."""

    backbone: nn.Module
    align: nn.Module
    remat: Remat

    def __call__(
        self,
        earlier: list[Array],
        flows: Array,
        *,
        backward: bool,
        constant: int = 0,
        prepared: Prepared | None = None,
    ) -> tuple[Array, Array]:
        """Runs over all clips.

        earlier: [k, b, n, h, w, c] each, the features of the shallow extractor and the branches so
        far. flows: [k - 1, b, i, s, h, w, 2], the guidance of the clips after the first, in their
        order of propagation: with `backward` the last clip is the first, as is each clip's last
        frame. constant, prepared: as in `layers.scan`. Returns the hidden states [k, b, n, h, w, c]
        and the refined flows, shaped as `flows`.
        """

        def order(x: Array) -> Array:
            return x[::-1] if backward else x

        def step(branch: "Branch", carry: tuple[Array, Array], x: tuple):
            first, earlier, flows = x
            turn = (lambda x: x[:, ::-1]) if backward else (lambda x: x)
            known = [turn(features) for features in earlier]
            hidden, refined, residues = branch.step(first, known, *carry, flows)
            return (hidden, known[-1]), (turn(hidden), refined, residues)

        flows = jnp.pad(flows, [(1, 0)] + [(0, 0)] * (flows.ndim - 1))
        start = jnp.zeros_like(earlier[0][0])
        xs = _first(order(jnp.arange(len(flows)) == 0)), earlier, order(flows)
        _, (hidden, refined, residues) = scan(
            self,
            step,
            (start, start),
            xs,
            remat=self.remat,
            constant=constant,
            prepared=prepared,
            reverse=backward,
        )
        self.sow("intermediates", "residue_lengths", order(residues)[1:])
        return hidden, order(refined)[1:]

    def step(
        self, first: "First", known: list[Array], hidden: Array, previous: Array, flows: Array
    ) -> tuple[Array, Array, Array]:
        """Aligns the hidden state to the next clip and refines it; the first clip has nothing to
        align.

        known: as `earlier`, of one clip. previous: the last of them, of the clip before.
        """

        clip = known[-1], previous, hidden, flows
        if self.is_initializing():
            found = self.align(*clip)
        else:
            found = _unless(first, *self.align.unbind(), *clip)
        aligned, refined, residues = found
        return self.refine(known, aligned), refined, residues

    def refine(self, known: list[Array], aligned: Array) -> Array:
        """`aligned + backbone(everything known about the clip)`."""
        return aligned + self.backbone(jnp.concatenate([*known, aligned], axis=-1))


class First(NamedTuple):
    """What becomes of the alignment of a clip that is the first, bool: there is nothing to align.

    Either is False where the platform does the other, known to its compiler.
    """

    skipped: Array
    discarded: Array


def _first(is_first: Array) -> First:
    """CPUs and TPUs skip the alignment. GPUs align and throw the result away: a branch of the
    program would have to wait, for each clip, until the host has seen which one to take.
    """

    def discard(is_first: Array) -> First:
        return First(jnp.zeros_like(is_first), is_first)

    def skip(is_first: Array) -> First:
        return First(is_first, jnp.zeros_like(is_first))

    return platforms.choose(is_first, cuda=discard, rocm=discard, default=skip)


def _unless(first: First, align: nn.Module, variables: Any, *clip: Array) -> Any:
    """Aligns a clip; the first one comes out as zeros. One program for all clips halves the memory.

    The alignment is written once, not for each platform: tracing it takes seconds.
    """

    def aligned(variables: Any, *clip: Array) -> Any:
        return align.apply(variables, *clip)

    def nothing(_, current: Array, *others: Array) -> Any:
        flows = others[-1]
        return jnp.zeros_like(current), jnp.zeros_like(flows), jnp.zeros(2, flows.dtype)

    if platforms.known() in platforms.GPUS:  # without a choice, in the gradient neither
        found = aligned(variables, *clip)
    else:
        found = jax.lax.cond(first.skipped, nothing, aligned, variables, *clip)
    return jax.tree.map(lambda x: jnp.where(first.discarded, jnp.zeros_like(x), x), found)
