"""What each JAX operation is in ONNX, for fixed shapes and the operations that networks here use.

Every function takes the graph, the operation (a jaxpr equation) and its inputs; it adds nodes and
returns the result. Meanings are those of jax.lax and of the ONNX operators, opset 18.
"""

import math

import numpy as np
from jax.lax import GatherScatterMode

from rvrt_jax.errors import UserError
from rvrt_jax.export.onnx_graph import Graph, Operator, Value, onnx_type


def _shape(eqn, index: int = 0) -> tuple[int, ...]:
    return eqn.invars[index].aval.shape


def _out(eqn) -> tuple[int, ...]:
    return eqn.outvars[0].aval.shape


def _ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def _reshaped(graph: Graph, x: Value, shape) -> Value:
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    return graph.emit("Reshape", x, _ints(*shape), allowzero=1)


def _transposed(graph: Graph, x: Value, order) -> Value:
    if list(order) == sorted(order):
        return x
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(x.transpose(order))
    return graph.emit("Transpose", x, perm=[int(axis) for axis in order])


def _require(condition: bool, eqn) -> None:
    """Stops at a form of an operation that is not translated."""
    if not condition:
        raise UserError(
            f"this network cannot be written as ONNX: {eqn.primitive.name} with {eqn.params} is "
            "not translated. Export it as .rvrt."
        )


def _simple(op: str) -> Operator:
    """An operation that ONNX has too, with the same inputs."""
    return lambda graph, eqn, *inputs: graph.emit(op, *inputs)


def _logical(op: str, bits: str) -> Operator:
    def apply(graph: Graph, eqn, *inputs: Value) -> Value:
        return graph.emit(op if eqn.invars[0].aval.dtype == bool else bits, *inputs)

    return apply


def _same(graph: Graph, eqn, *inputs: Value):
    return inputs


def _reshape(graph: Graph, eqn, x: Value) -> Value:
    return _reshaped(graph, x, _out(eqn))


def _number(eqn, value: float) -> np.ndarray:
    return np.asarray(value, eqn.invars[0].aval.dtype)


def _clamp(graph: Graph, eqn, low: Value, x: Value, high: Value) -> Value:
    return graph.emit("Max", low, graph.emit("Min", x, high))


def _select(graph: Graph, eqn, which: Value, *cases: Value) -> Value:
    _require(len(cases) == 2 and eqn.invars[0].aval.dtype == bool, eqn)
    return graph.emit("Where", which, cases[1], cases[0])


def _convert(graph: Graph, eqn, x: Value) -> Value:
    return graph.emit("Cast", x, to=onnx_type(eqn.params["new_dtype"]))


def _broadcast(graph: Graph, eqn, x: Value) -> Value:
    out = _out(eqn)
    ones = [1] * len(out)
    for axis, size in zip(eqn.params["broadcast_dimensions"], _shape(eqn), strict=True):
        ones[axis] = size
    x = _reshaped(graph, x, ones)
    return x if tuple(ones) == out else graph.emit("Expand", x, _ints(*out))


def _iota(graph: Graph, eqn) -> Value:
    axis, out = eqn.params["dimension"], _out(eqn)
    ones = [size if i == axis else 1 for i, size in enumerate(out)]
    count = np.arange(out[axis], dtype=eqn.outvars[0].aval.dtype).reshape(ones)
    return count if count.shape == out else graph.emit("Expand", count, _ints(*out))


def _transpose(graph: Graph, eqn, x: Value) -> Value:
    return _transposed(graph, x, eqn.params["permutation"])


def _concatenate(graph: Graph, eqn, *inputs: Value) -> Value:
    return graph.emit("Concat", *inputs, axis=int(eqn.params["dimension"]))


def _stack(graph: Graph, eqn, *inputs: Value) -> Value:
    axis = int(eqn.params["axis"])
    shape = list(_shape(eqn))
    shape.insert(axis, 1)
    return graph.emit("Concat", *(_reshaped(graph, x, shape) for x in inputs), axis=axis)


def _split(graph: Graph, eqn, x: Value):
    sizes, axis = eqn.params["sizes"], int(eqn.params["axis"])
    return graph.emit_many("Split", len(sizes), x, _ints(*sizes), axis=axis)


def _slice(graph: Graph, eqn, x: Value) -> Value:
    start, limit = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or [1] * len(start)
    return graph.emit("Slice", x, _ints(*start), _ints(*limit), _axes(start), _ints(*strides))


def _axes(shape) -> np.ndarray:
    return np.arange(len(shape), dtype=np.int64)


def _dynamic_slice(graph: Graph, eqn, x: Value, *starts: Value) -> Value:
    sizes = _ints(*eqn.params["slice_sizes"])
    start = graph.emit("Concat", *(_reshaped(graph, s, [1]) for s in starts), axis=0)
    start = graph.emit("Cast", start, to=onnx_type(np.dtype("int64")))
    start = graph.emit("Max", _ints(0), graph.emit("Min", start, _ints(*_shape(eqn)) - sizes))
    return graph.emit("Slice", x, start, graph.emit("Add", start, sizes), _axes(sizes))


def _reverse(graph: Graph, eqn, x: Value) -> Value:
    axes = _ints(*eqn.params["dimensions"])
    last, first = np.full_like(axes, -1), np.full_like(axes, np.iinfo(np.int64).min)
    return graph.emit("Slice", x, last, first, axes, last)


def _pad(graph: Graph, eqn, x: Value, value: Value) -> Value:
    low, high, inner = (_ints(*part) for part in zip(*eqn.params["padding_config"], strict=True))
    _require(not inner.any(), eqn)  # ONNX crops where a number is negative, as lax does
    return graph.emit("Pad", x, np.concatenate([low, high]), value)


def _dot_general(graph: Graph, eqn, a: Value, b: Value) -> Value:
    (sum_a, sum_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    shape_a, shape_b = _shape(eqn, 0), _shape(eqn, 1)
    rows = [i for i in range(len(shape_a)) if i not in (*sum_a, *batch_a)]
    columns = [i for i in range(len(shape_b)) if i not in (*sum_b, *batch_b)]
    batch = [shape_a[i] for i in batch_a]
    inner = math.prod(shape_a[i] for i in sum_a)
    n, m = math.prod(shape_a[i] for i in rows), math.prod(shape_b[i] for i in columns)
    a = _reshaped(graph, _transposed(graph, a, [*batch_a, *rows, *sum_a]), [*batch, n, inner])
    b = _reshaped(graph, _transposed(graph, b, [*batch_b, *sum_b, *columns]), [*batch, inner, m])
    return _reshaped(graph, graph.emit("MatMul", a, b), _out(eqn))


def _convolution(graph: Graph, eqn, x: Value, kernel: Value) -> Value:
    params, layout = eqn.params, eqn.params["dimension_numbers"]
    _require(set(params["lhs_dilation"]) == {1} and params["batch_group_count"] == 1, eqn)
    low, high = zip(*params["padding"], strict=True)
    out = graph.emit(
        "Conv",
        _transposed(graph, x, layout.lhs_spec),
        _transposed(graph, kernel, layout.rhs_spec),
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        pads=[*low, *high],
        group=params["feature_group_count"],
    )
    return _transposed(graph, out, np.argsort(layout.out_spec))


def _pool(graph: Graph, eqn, x: Value, op: str, **options) -> Value:
    """Pools over the middle axes of [b, ..., c]."""
    params, axes = eqn.params, range(1, len(_out(eqn)) - 1)
    ends = (0, len(_out(eqn)) - 1)
    dilation = (*params["base_dilation"], *params["window_dilation"])
    _require(set(dilation) == {1} and all(params["window_dimensions"][i] == 1 for i in ends), eqn)
    _require(all(params["padding"][i] == (0, 0) for i in ends), eqn)
    out = graph.emit(
        op,
        _transposed(graph, x, [0, ends[1], *axes]),
        kernel_shape=[params["window_dimensions"][i] for i in axes],
        strides=[params["window_strides"][i] for i in axes],
        pads=[params["padding"][i][side] for side in (0, 1) for i in axes],
        **options,
    )
    return _transposed(graph, out, [0, *range(2, len(_out(eqn))), 1])


def _sum_pool(graph: Graph, eqn, x: Value) -> Value:
    mean = _pool(graph, eqn, x, "AveragePool", count_include_pad=1)
    return graph.emit("Mul", mean, _number(eqn, math.prod(eqn.params["window_dimensions"])))


def _reduction(op: str) -> Operator:
    return lambda graph, eqn, x: graph.emit(op, x, _ints(*eqn.params["axes"]), keepdims=0)


def _gather(graph: Graph, eqn, x: Value, indices: Value) -> Value:
    """Fetches rows of the flattened operand.

    The operand is cut into leading axes, of which an index picks, and trailing axes that are
    fetched whole: a row. Every fetched row has the number sum(position * stride).
    """
    numbers, sizes, shape = eqn.params["dimension_numbers"], eqn.params["slice_sizes"], _shape(eqn)
    lead = max((i + 1 for i, size in enumerate(sizes) if size != shape[i]), default=0)
    indices = _clamped_indices(graph, eqn, indices)
    batch = _shape(eqn, 1)[:-1]
    dropped = {*map(int, numbers.collapsed_slice_dims), *map(int, numbers.operand_batching_dims)}
    kept = [i for i in range(lead) if i not in dropped]
    rank = len(batch) + len(kept)

    def spread(value: Value, axes: list[int], lengths) -> Value:
        ones = [1] * rank
        for axis, length in zip(axes, lengths, strict=True):
            ones[axis] = length
        return _reshaped(graph, value, ones)

    row: Value = spread(np.zeros((), np.int64), [], [])
    for i in range(lead):
        parts: list[Value] = []
        if i in numbers.start_index_map:
            column = list(numbers.start_index_map).index(i)
            picked = graph.emit("Gather", indices, np.asarray(column, np.int64), axis=-1)
            parts.append(spread(picked, list(range(len(batch))), batch))
        if i in numbers.operand_batching_dims:
            place = list(numbers.operand_batching_dims).index(i)
            axis = int(numbers.start_indices_batching_dims[place])
            parts.append(spread(np.arange(shape[i]), [axis], [shape[i]]))
        if i in kept:
            axis = len(batch) + kept.index(i)
            parts.append(spread(np.arange(sizes[i]), [axis], [sizes[i]]))
        for part in parts:
            stride = _ints(math.prod(shape[i + 1 : lead]))
            row = graph.emit("Add", row, graph.emit("Mul", part, stride))
    rows = _reshaped(graph, x, [math.prod(shape[:lead]), *shape[lead:]])
    row = graph.emit("Expand", row, _ints(*batch, *(sizes[i] for i in kept)))
    fetched = graph.emit("Gather", rows, row, axis=0)
    offsets = [size for i, size in enumerate(sizes) if i not in dropped]
    fetched = _reshaped(graph, fetched, [*batch, *offsets])
    places = [int(axis) for axis in numbers.offset_dims]
    others = [axis for axis in range(len(_out(eqn))) if axis not in places]
    return _transposed(graph, fetched, np.argsort([*others, *places]))


def _clamped_indices(graph: Graph, eqn, indices: Value) -> Value:
    """Returns the indices as int64, inside the operand, as XLA does whatever the mode promises.

    JAX's own map_coordinates promises indices inside, and fetches others that it then discards.
    """
    numbers, sizes, shape = eqn.params["dimension_numbers"], eqn.params["slice_sizes"], _shape(eqn)
    _require(eqn.params["mode"] != GatherScatterMode.FILL_OR_DROP, eqn)
    indices = graph.emit("Cast", indices, to=onnx_type(np.dtype("int64")))
    last = _ints(*(shape[i] - sizes[i] for i in numbers.start_index_map))
    return graph.emit("Max", _ints(0), graph.emit("Min", indices, last))


OPERATORS: dict[str, Operator] = {
    **{name.lower(): _simple(name) for name in ("Add", "Mul", "Sub", "Div", "Max", "Min", "Neg")},
    **{name.lower(): _simple(name) for name in ("Abs", "Sign", "Floor", "Exp", "Log", "Tanh")},
    **{name.lower(): _simple(name) for name in ("Sqrt", "Pow", "Erf", "Ceil", "Sin", "Cos")},
    "logistic": _simple("Sigmoid"),
    "lt": _simple("Less"),
    "le": _simple("LessOrEqual"),
    "gt": _simple("Greater"),
    "ge": _simple("GreaterOrEqual"),
    "eq": _simple("Equal"),
    "ne": lambda graph, eqn, a, b: graph.emit("Not", graph.emit("Equal", a, b)),
    "and": _logical("And", "BitwiseAnd"),
    "or": _logical("Or", "BitwiseOr"),
    "not": _logical("Not", "BitwiseNot"),
    "rem": lambda graph, eqn, a, b: graph.emit("Mod", a, b, fmod=1),
    "rsqrt": lambda graph, eqn, x: graph.emit("Reciprocal", graph.emit("Sqrt", x)),
    "erfc": lambda graph, eqn, x: graph.emit("Sub", _number(eqn, 1), graph.emit("Erf", x)),
    "square": lambda graph, eqn, x: graph.emit("Mul", x, x),
    "integer_pow": lambda graph, eqn, x: graph.emit("Pow", x, _number(eqn, eqn.params["y"])),
    "clamp": _clamp,
    "select_n": _select,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "rev": _reverse,
    "pad": _pad,
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "reduce_window_max": lambda graph, eqn, x: _pool(graph, eqn, x, "MaxPool"),
    "reduce_window_sum": _sum_pool,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "gather": _gather,
    "copy": _same,
    "stop_gradient": _same,
    "optimization_barrier": _same,
    # The operations for CPUs are the plain ones, which every runtime has.
    "platform_index": lambda graph, eqn: np.asarray(_cpu(eqn), np.int32),
}


def _cpu(eqn) -> int:
    """Returns the number of the branch for CPUs, or of the one for all platforms."""
    platforms = eqn.params["platforms"]
    own = [i for i, group in enumerate(platforms) if group is not None and "cpu" in group]
    return own[0] if own else next(i for i, group in enumerate(platforms) if group is None)
