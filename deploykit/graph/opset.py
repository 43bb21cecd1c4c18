"""Brings an ONNX model to one spelling of each operator: no functions, no old opset."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
import onnx.version_converter

from deploykit.errors import GraphError

OLDEST = 9
NEWEST = int(onnx.defs.onnx_opset_version())

SPELLING = 18
"""From here on axes, splits and pads are inputs of every operator; older models come up to it."""

SIMPLE_NEAREST = {True: "ceil", False: "floor"}
"""How ONNX Runtime rounds coordinates in Upsample and Resize up to opset 10, by `scale < 1`."""


SPELLED = frozenset(("Attention", "GroupNormalization", "RMSNormalization"))
"""Operators of newer opsets that neither format has; what they do has names there."""


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator domain, 0 where the model imports none."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def modernize(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` without local functions, of opset SPELLING at least.

    onnx's version converter knows every operator's changes but one: linear Upsample, and linear
    Resize of opset 10, count coordinates from the corner, not from the pixel's centre.

    Raises GraphError where the opset is out of OLDEST to NEWEST, or an operator has no newer form.
    """
    opset = opset_of(model)
    if not OLDEST <= opset <= NEWEST:
        raise GraphError(
            f"{path} has opset {opset}, and opsets {OLDEST} to {NEWEST} are read; "
            f"export it with opset {SPELLING}"
        )
    flat = onnx.inliner.inline_local_functions(model) if model.functions else _copy(model)
    for entry in flat.opset_import:
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    _drop_default_inputs(flat)
    flat = _spelled_out(flat)
    if opset >= SPELLING:
        return flat
    modes = {} if opset > 10 else _resize_modes(path, flat)
    try:
        # A Softmax whose rank is known stays one operator instead of becoming four.
        known = onnx.shape_inference.infer_shapes(flat, data_prop=True)
        converted = onnx.version_converter.convert_version(known, SPELLING)
    except RuntimeError as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise GraphError(
            f"{path} has opset {opset}, and an operator has no form in opset {SPELLING} "
            f"({reason}); export it with opset {SPELLING} or later"
        ) from error
    for node in converted.graph.node:
        if node.op_type == "Resize" and node.output[0] in modes:
            _set(node, "coordinate_transformation_mode", "asymmetric")
            _set(node, "nearest_mode", modes[node.output[0]])
    return converted


def _spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Operators of SPELLED by the functions that the specification defines them with."""
    present = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}
    if not present & SPELLED:
        return model
    typed = _copy(model)
    for tensor in model.graph.initializer:
        shape = list(tensor.dims)
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
        typed.graph.value_info.append(info)
    wanted = [("", name) for name in sorted(present & SPELLED)]
    return onnx.inliner.inline_selected_functions(
        onnx.shape_inference.infer_shapes(typed), wanted, inline_schema_functions=True
    )


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _drop_default_inputs(model: onnx.ModelProto) -> None:
    """Before IR 4 weights stand among the graph's inputs; they are constants all the same."""
    stored = {tensor.name for tensor in model.graph.initializer}
    ports = [port for port in model.graph.input if port.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(ports)
    model.ir_version = max(model.ir_version, 4)


def _resize_modes(path: Path, model: onnx.ModelProto) -> dict[str, str]:
    """nearest_mode by output of every Upsample and Resize of an opset up to 10."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            stored[node.output[0]] = attribute.t
    modes = {}
    for node in model.graph.node:
        if node.op_type not in {"Upsample", "Resize"}:
            continue
        scales = stored.get(node.input[1])
        if scales is None:
            raise GraphError(
                f"{path}: {node.op_type} {node.output[0]!r} of opset {opset_of(model)} computes "
                f"its scales; simplify the model, or export it with opset {SPELLING}"
            )
        below = {bool(scale < 1) for scale in onnx.numpy_helper.to_array(scales) if scale != 1}
        if len(below) > 1:
            raise GraphError(
                f"{path}: {node.op_type} {node.output[0]!r} of opset {opset_of(model)} both grows "
                f"and shrinks its input; export the model with opset {SPELLING}"
            )
        modes[node.output[0]] = SIMPLE_NEAREST[below == {True}]
    return modes


def _set(node: onnx.NodeProto, name: str, value: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
