"""An ONNX file that also returns every integer activation it computes.

Only the outputs of QuantizeLinear and of operators on integers are added: ORT fuses a node group
whose QuantizeLinear is a graph output, but not one whose real-valued inside is.
"""

from __future__ import annotations

from onnx import TensorProto

from deploykit.emit.onnx_file import parse_onnx


def probe_onnx(data: bytes) -> bytes:
    """The same file with every uint8 activation as an output, behind its own outputs.

    Activations that the caller of the file fills stay inputs only.
    """
    model = parse_onnx(data)
    graph = model.graph
    known = {value.name for value in (*graph.input, *graph.output)}
    shapes = {value.name: value for value in graph.value_info}
    computed = [name for node in graph.node for name in node.output]
    hidden = [shapes[name] for name in computed if name in shapes and name not in known]
    graph.output.extend(
        value for value in hidden if value.type.tensor_type.elem_type == TensorProto.UINT8
    )
    del graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))
