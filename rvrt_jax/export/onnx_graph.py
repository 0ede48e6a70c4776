"""Turns a JAX program of fixed shapes into an ONNX graph.

Every operation of the program (its jaxpr) becomes a few ONNX nodes, by `OPERATORS` of
`onnx_operators`; loops and conditions are here. ONNX has one name space: what is made outside a
loop can be read inside it, so constants lie in the outermost graph.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import onnx
from jax.extend import core
from onnx import TensorProto, helper, numpy_helper

from rvrt_jax.errors import UserError

OPSET = 18
IR_VERSION = 9  # of the file; what goes with opset 18 to 20

Value = np.ndarray | str  # known when the graph is made, or the name of what a node computes
Operator = Callable[..., Value | Sequence[Value]]

TYPES = {
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
# Operations that only hold another program; where they keep it.
_CALLS = {
    "jit": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


class Graph:
    """An ONNX graph under construction. operators: by the name of the JAX operation."""

    def __init__(self, operators: dict[str, Operator]):
        self.operators = operators
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[Any, str] = {}
        self._kept: list[np.ndarray] = []  # so that no two constants have the same id
        self._count = itertools.count()

    def new_name(self, kind: str) -> str:
        """Returns a name that nothing in the file has."""
        return f"{kind}_{next(self._count)}"

    def name_of(self, value: Value) -> str:
        """Returns the name of a value; a known one becomes a constant of the file."""
        if isinstance(value, str):
            return value
        small = value.size <= 64
        key = (value.dtype.str, value.shape, value.tobytes()) if small else id(value)
        if key not in self._constants:
            name = self.new_name("constant")
            self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
            self._constants[key] = name
            self._kept.append(value)
        return self._constants[key]

    def emit(self, op: str, *inputs: Value, **attributes) -> str:
        """Adds a node with one output; returns the name of it."""
        return self.emit_many(op, 1, *inputs, **attributes)[0]

    def emit_many(self, op: str, outputs: int, *inputs: Value, **attributes) -> list[str]:
        """Adds a node; returns the names of its outputs."""
        names = [self.new_name(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, [*map(self.name_of, inputs)], names, **attributes))
        return names

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """Adds the operations of a program; returns its results.

        Raises UserError for an operation that cannot be written in ONNX.
        """
        known = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        values: dict[Any, Value] = known | dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom) -> Value:
            if isinstance(atom, core.Literal):
                return np.asarray(atom.val, cast(Any, atom.aval).dtype)
            return values[atom]

        for eqn in jaxpr.eqns:
            results = self._operation(eqn, [read(atom) for atom in eqn.invars])
            values |= dict(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _operation(self, eqn, inputs: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            return self.run(*_open(inner), inputs)
        if name == "scan":
            return self._scan(eqn, inputs)
        if name == "cond":
            return self._condition(eqn, inputs)
        if all(isinstance(value, np.ndarray) and value.ndim == 0 for value in inputs) and all(
            var.aval.ndim == 0 for var in eqn.outvars
        ):
            results = eqn.primitive.bind(*inputs, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
            return [np.asarray(result) for result in results]
        if name not in self.operators:
            raise UserError(
                f"this network cannot be written as ONNX: nothing here translates the JAX "
                f"operation {name!r}. Export it as .rvrt."
            )
        results = self.operators[name](self, eqn, *inputs)
        return [results] if isinstance(results, str | np.ndarray) else list(results)

    def subgraph(
        self, name: str, inputs: list[onnx.ValueInfoProto], avals: Sequence[Any], make: Callable
    ) -> onnx.GraphProto:
        """Makes a graph inside this one. make(): adds its nodes and returns its results."""
        outer, self.nodes = self.nodes, []
        results = [self.emit("Identity", value) for value in make()]
        outputs = [value_info(n, aval) for n, aval in zip(results, avals, strict=True)]
        inner, self.nodes = self.nodes, outer
        return helper.make_graph(inner, name, inputs, outputs)

    def _scan(self, eqn, inputs: list[Value]) -> list[Value]:
        consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
        jaxpr, closed = _open(eqn.params["jaxpr"])
        outer, inner = inputs[:consts], jaxpr.invars[consts:]
        names = [self.new_name("scan") for _ in inner]
        body_inputs = [value_info(n, v.aval) for n, v in zip(names, inner, strict=True)]
        if len(names) == carries:  # ONNX counts the turns by what it scans over
            inputs = [*inputs, np.zeros(eqn.params["length"], np.float32)]
            body_inputs.append(
                helper.make_tensor_value_info(self.new_name("turn"), TensorProto.FLOAT, [])
            )
        scanned = len(body_inputs) - carries
        body = self.subgraph(
            self.new_name("body"),
            body_inputs,
            [v.aval for v in jaxpr.outvars],
            lambda: self.run(jaxpr, closed, [*outer, *names]),
        )
        directions = {}
        if eqn.params["reverse"]:
            directions["scan_input_directions"] = [1] * scanned
        if eqn.params["reverse"] and len(eqn.outvars) > carries:
            directions["scan_output_directions"] = [1] * (len(eqn.outvars) - carries)
        return list(
            self.emit_many(
                "Scan",
                len(eqn.outvars),
                *inputs[consts:],
                body=body,
                num_scan_inputs=scanned,
                **directions,
            )
        )

    def _condition(self, eqn, inputs: list[Value]) -> list[Value]:
        index, *rest = inputs
        branches = eqn.params["branches"]
        if isinstance(index, np.ndarray):  # the branch of a platform
            return self.run(*_open(branches[int(index)]), rest)
        if len(branches) != 2:
            raise UserError(f"a choice of {len(branches)} programs cannot be written as ONNX.")
        graphs = [
            self.subgraph(
                self.new_name("branch"),
                [],
                [var.aval for var in eqn.outvars],
                lambda branch=branch: self.run(*_open(branch), rest),
            )
            for branch in branches
        ]
        chosen = self.emit("Cast", index, to=TensorProto.BOOL)
        return list(
            self.emit_many(
                "If", len(eqn.outvars), chosen, then_branch=graphs[1], else_branch=graphs[0]
            )
        )


def value_info(name: str, aval: Any) -> onnx.ValueInfoProto:
    """Returns the name, type and shape of an input or output."""
    return helper.make_tensor_value_info(name, onnx_type(aval.dtype), aval.shape)


def onnx_type(dtype: Any) -> int:
    """Returns ONNX's number of a type. Raises UserError for one that networks here never have."""
    if str(dtype) not in TYPES:
        raise UserError(f"{dtype} cannot be written as ONNX here; build the network in float32.")
    return TYPES[str(dtype)]


def _open(jaxpr) -> tuple[core.Jaxpr, Sequence[Any]]:
    if isinstance(jaxpr, core.ClosedJaxpr):
        return jaxpr.jaxpr, jaxpr.consts
    return jaxpr, ()
