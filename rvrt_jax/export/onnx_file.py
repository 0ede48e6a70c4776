"""A network of one fixed size as an ONNX file, float32, opset 18."""

import os

import jax
import numpy as np

from rvrt_jax.errors import UserError
from rvrt_jax.export.program import Fixed
from rvrt_jax.files import write_bytes
from rvrt_jax.ops.platforms import known_to_be

_LARGEST = 2**31 - 2**20  # bytes; Protocol Buffers end at 2 GiB


def write(path: str | os.PathLike, fixed: Fixed) -> None:
    """Writes an ONNX file; it appears only when complete.

    Raises UserError if onnx is not installed, if the network computes in another type than
    float32, or has an operation that is not translated, naming it.
    """
    try:
        import onnx

        from rvrt_jax.export import onnx_graph, onnx_operators
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; run: pip install 'rvrt_jax[export]'"
        ) from error
    header, weights = fixed.header(), fixed.weights
    order = sorted(weights)

    def program(arrays, video):
        return fixed(dict(zip(order, arrays, strict=True)), video)

    arrays = [weights[name] for name in order]
    with known_to_be("cpu"):
        closed = jax.make_jaxpr(program)(arrays, fixed.input)
    graph = onnx_graph.Graph(onnx_operators.OPERATORS)
    names = header["input"]["name"], header["output"]["name"]
    (result,) = graph.run(closed.jaxpr, closed.consts, [*map(np.asarray, arrays), names[0]])
    graph.nodes.append(onnx.helper.make_node("Identity", [graph.name_of(result)], [names[1]]))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            header["model"]["name"],
            [onnx_graph.value_info(names[0], fixed.input)],
            [onnx_graph.value_info(names[1], fixed.output)],
            graph.initializers,
        ),
        ir_version=onnx_graph.IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", onnx_graph.OPSET)],
        producer_name="rvrt_jax",
    )
    onnx.helper.set_model_props(model, {key: str(value) for key, value in header.items()})
    if model.ByteSize() > _LARGEST:
        raise UserError(f"the network takes {model.ByteSize()} bytes; ONNX files hold 2 GiB.")
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())
