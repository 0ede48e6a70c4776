"""What stands in for einops on a bare machine does what einops does, as far as it is asked."""

import ast
import re
from pathlib import Path

import einops
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import einops_standin

ROOT = Path(__file__).parents[2]


def calls() -> set[tuple[str, str, tuple[str, ...]]]:
    """Returns every (function, pattern, given sizes) of the networks and operators."""
    found = set()
    for path in [*ROOT.glob("rvrt_jax/models/*.py"), *ROOT.glob("rvrt_jax/ops/*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = {
            ast.unparse(node.targets[0]): ast.literal_eval(node.value)
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        for node in nodes:
            match node:
                case ast.Call(func=ast.Name(id="rearrange" | "repeat" as name), args=[_, pattern]):
                    text = named.get(ast.unparse(pattern)) or ast.literal_eval(pattern)
                    given = tuple(sorted(keyword.arg or "" for keyword in node.keywords))
                    found.add((name, text, given))
    return found


def test_the_networks_ask_for_something():
    assert len(calls()) > 20


@pytest.mark.parametrize("name, pattern, given", sorted(calls()))
def test_it_does_what_einops_does(name, pattern, given):
    left = pattern.split("->")[0].replace("...", "lead1 lead2")
    groups = re.findall(r"\(([^)]*)\)|(\S+)", left)
    size = {axis: n for n, axis in enumerate(dict.fromkeys(re.findall(r"[a-z]\w*", pattern)), 2)}
    shape = [
        int(np.prod([size.get(axis, 1) for axis in (inside or alone).split()]))
        for inside, alone in groups
    ]
    x = jnp.arange(np.prod(shape)).reshape(shape)
    sizes = {axis: size[axis] for axis in given}
    expected = getattr(einops, name)(x, pattern, **sizes)
    np.testing.assert_array_equal(getattr(einops_standin, name)(x, pattern, **sizes), expected)
