"""ONNX graphs evaluated by torch, in float64 and with gradients: an oracle beside the runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from removal_graph import Array, Graph, attributes
from torch.nn import functional

Values = Sequence[torch.Tensor]
Rule = Callable[[Values, Mapping[str, Any]], torch.Tensor]
Tap = Callable[[onnx.NodeProto, torch.Tensor], torch.Tensor]


def evaluate(graph: Graph, inputs: Array, tap: Tap | None = None) -> list[torch.Tensor]:
    """The graph's outputs in float64. tap: sees, and may replace, what a node reads first.

    With a tap, for gradients: clipping activations pass gradients on as if they were the identity,
    so that a gradient is zero where weights are, not where an input happens to be clipped.
    """
    values: dict[str, torch.Tensor] = {
        name: _tensor(constant) for name, constant in graph.constants.items()
    }
    values[graph.input_name] = _tensor(inputs)
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(node.input, index))
    keep = {*graph.constants, *graph.output_names}
    for index, node in enumerate(graph.nodes):
        if node.op_type == "Constant":
            continue
        read = [values[name] if name else torch.empty(0) for name in node.input]
        if tap is not None:
            read[0] = tap(node, read[0])
        result = _apply(node, read, graph)
        if tap is not None and node.op_type in CLIPPING:
            result = read[0] + (result - read[0]).detach()
        results = [result] if isinstance(result, torch.Tensor) else result
        values.update(zip(node.output, results, strict=True))
        for name in node.input:
            if name and last[name] == index and name not in keep:
                values.pop(name, None)
    return [values[name] for name in graph.output_names]


def largest_difference(before: Graph, after: Graph, inputs: Sequence[Array]) -> float:
    """max |after - before| / max |before| over all outputs, in float64; infinite where not equal.

    Each output is measured against its own largest value.
    """
    largest = 0.0
    for one in inputs:
        with torch.no_grad():
            pairs = zip(evaluate(before, one), evaluate(after, one), strict=True)
            for a, b in pairs:
                if a.shape != b.shape or not bool(torch.isfinite(b).all()):
                    return float("inf")
                scale = float(a.abs().max())
                difference = float((a - b).abs().max())
                largest = max(largest, difference / scale if scale else difference)
    return largest


def _tensor(values: Array) -> torch.Tensor:
    own = np.array(values)
    return torch.from_numpy(own.astype(np.float64) if own.dtype.kind == "f" else own)


def _apply(node: onnx.NodeProto, read: Values, graph: Graph) -> Any:
    if node.op_type not in RULES:
        raise NotImplementedError(f"{node.op_type} {node.name}: torch evaluation has no rule")
    options: dict[str, Any] = attributes(node)
    options["opset"] = next(item.version for item in graph.model.opset_import if not item.domain)
    options["outputs"] = len(node.output)
    return RULES[node.op_type](read, options)


def _padded(x: torch.Tensor, options: Mapping[str, Any], value: float) -> torch.Tensor:
    pads = options.get("pads")
    if options.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotImplementedError("auto_pad: torch evaluation has no rule")
    return x if not pads or not any(pads) else _pad(x, pads, value)


def _pad(x: torch.Tensor, pads: Sequence[int], value: float) -> torch.Tensor:
    half = len(pads) // 2
    order = [side for axis in reversed(range(half)) for side in (pads[axis], pads[axis + half])]
    return functional.pad(x, order, value=value)


def _conv(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x, weight, *bias = read
    rank = weight.ndim - 2
    return (functional.conv1d, functional.conv2d)[rank - 1](
        _padded(x, options, 0.0), weight, bias[0] if bias else None,
        tuple(options.get("strides", (1,) * rank)), 0, tuple(options.get("dilations", (1,) * rank)),
        options.get("group", 1),
    )  # fmt: skip


def _conv_transpose(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x, weight, *bias = read
    pads = options.get("pads", [0] * 2 * (weight.ndim - 2))
    whole = functional.conv_transpose2d(
        x, weight, bias[0] if bias else None, tuple(options.get("strides", (1, 1))), 0,
        tuple(options.get("output_padding", (0, 0))), options.get("group", 1),
        tuple(options.get("dilations", (1, 1))),
    )  # fmt: skip
    return _pad(whole, [-size for size in (0, 0, *pads[:2], 0, 0, *pads[2:])], 0.0)


def _gemm(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    a = read[0].T if options.get("transA", 0) else read[0]
    b = read[1].T if options.get("transB", 0) else read[1]
    alpha, beta = float(options.get("alpha", 1.0)), float(options.get("beta", 1.0))
    y = alpha * (a @ b)
    return y + beta * read[2] if len(read) > 2 else y


def _batch_norm(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x, scale, shift, mean, variance = read
    return functional.batch_norm(
        x, mean, variance, scale, shift, False, 0.0, options.get("epsilon", 1e-5)
    )


def _max_pool(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x = _padded(read[0], _spatial(options), float("-inf"))
    return functional.max_pool2d(
        x, tuple(options["kernel_shape"]), tuple(options.get("strides", (1, 1))),
        ceil_mode=bool(options.get("ceil_mode", 0)),
    )  # fmt: skip


def _average_pool(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    shape, strides = tuple(options["kernel_shape"]), tuple(options.get("strides", (1, 1)))
    padding = _spatial(options)
    total = functional.avg_pool2d(_padded(read[0], padding, 0.0), shape, strides)
    if options.get("count_include_pad", 0):
        return total
    ones = _padded(torch.ones_like(read[0]), padding, 0.0)
    return total / functional.avg_pool2d(ones, shape, strides)


def _spatial(options: Mapping[str, Any]) -> dict[str, Any]:
    """Pads of a window, as those of the whole tensor."""
    pads = options.get("pads", [0, 0, 0, 0])
    return {**options, "pads": [0, 0, *pads[:2], 0, 0, *pads[2:]]}


def _conv_padded(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    rank = read[1].ndim - 2
    pads = options.get("pads", [0] * 2 * rank)
    whole = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
    return _conv(read, {**options, "pads": whole})


def _pad_node(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    pads = options["pads"] if "pads" in options else read[1].tolist()
    if options.get("mode", b"constant") != b"constant" or (len(read) > 3 and read[3].numel()):
        raise NotImplementedError("Pad with this mode or axes: torch evaluation has no rule")
    value = float(read[2]) if len(read) > 2 and read[2].numel() else 0.0
    return _pad(read[0], pads, value)


def _resize(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x = read[0]
    sizes = read[3] if len(read) > 3 and read[3].numel() else None
    shape = (
        sizes.tolist() if sizes is not None
        else [int(size * scale) for size, scale in zip(x.shape, read[2].tolist(), strict=True)]
    )  # fmt: skip
    whole = all(after % before == 0 for before, after in zip(x.shape, shape, strict=True))
    if options.get("mode", b"nearest") != b"nearest" or not whole:
        raise NotImplementedError("Resize other than nearest, whole steps: no rule")
    return functional.interpolate(x, tuple(shape[2:]), mode="nearest")


def _reduce_mean(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    axes = read[1].tolist() if len(read) > 1 else list(options["axes"])
    return read[0].mean(dim=axes, keepdim=bool(options.get("keepdims", 1)))


def _reshape(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    shape = [read[0].shape[i] if size == 0 else size for i, size in enumerate(read[1].tolist())]
    return read[0].reshape(shape)


def _axes(read: Values, options: Mapping[str, Any]) -> list[int] | None:
    if len(read) > 1 and read[1].numel():
        found: list[int] = read[1].tolist()
        return found
    return list(options["axes"]) if "axes" in options else None


def _squeeze(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    axes = _axes(read, options)
    return read[0].squeeze() if axes is None else read[0].squeeze(tuple(axes))


def _unsqueeze(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x = read[0]
    axes = _axes(read, options)
    assert axes is not None
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    x = read[0]
    starts, ends = read[1].tolist(), read[2].tolist()
    axes = read[3].tolist() if len(read) > 3 and read[3].numel() else range(len(starts))
    steps = read[4].tolist() if len(read) > 4 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index = range(x.shape[axis])[slice(start, end, step)]
        x = x.index_select(axis, torch.tensor(list(index)))
    return x


def _gather(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    axis, index = options.get("axis", 0), read[1]
    taken = read[0].index_select(axis, index.reshape(-1) % read[0].shape[axis])
    shape = read[0].shape
    return taken.reshape(*shape[:axis], *index.shape, *shape[axis % len(shape) + 1 :])


def _split(read: Values, options: Mapping[str, Any]) -> list[torch.Tensor]:
    axis = options.get("axis", 0)
    sizes = read[1].tolist() if len(read) > 1 else options.get("split")
    if sizes is None:
        count = options["outputs"]
        return list(read[0].chunk(count, dim=axis))
    return list(torch.split(read[0], [int(size) for size in sizes], dim=axis))


def _clip(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    low = float(read[1]) if len(read) > 1 and read[1].numel() else options.get("min")
    high = float(read[2]) if len(read) > 2 and read[2].numel() else options.get("max")
    return read[0].clamp(low, high)


def _layer_norm(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    axis = options.get("axis", -1) % read[0].ndim
    shift = read[2] if len(read) > 2 else None
    return functional.layer_norm(
        read[0], read[0].shape[axis:], read[1], shift, options.get("epsilon", 1e-5)
    )


def _hard_sigmoid(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    alpha, beta = float(options.get("alpha", 0.2)), float(options.get("beta", 0.5))
    return (alpha * read[0] + beta).clamp(0.0, 1.0)


def _softmax(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    return read[0].softmax(options.get("axis", -1))


def _gelu(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    return functional.gelu(read[0], approximate=options.get("approximate", b"none").decode())


def _transpose(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    return read[0].permute(tuple(options.get("perm", reversed(range(read[0].ndim)))))


def _flatten(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    axis = options.get("axis", 1)
    return read[0].reshape(int(np.prod(read[0].shape[:axis])), -1)


def _cast(read: Values, options: Mapping[str, Any]) -> torch.Tensor:
    """Between float types only: everything here is float64."""
    if not read[0].is_floating_point():
        kind = onnx.helper.tensor_dtype_to_np_dtype(options["to"])
        return _tensor(read[0].numpy().astype(kind))
    return read[0]


CLIPPING = frozenset(("Relu", "Clip", "HardSigmoid", "HardSwish"))

RULES: Mapping[str, Callable[[Values, Mapping[str, Any]], Any]] = {
    "Add": lambda x, _: x[0] + x[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": lambda x, _: x[0],
    "Clip": _clip,
    "Concat": lambda x, options: torch.cat(list(x), dim=options["axis"]),
    "Conv": _conv_padded,
    "ConvTranspose": _conv_transpose,
    "Div": lambda x, _: x[0] / x[1],
    "Dropout": lambda x, _: x[0],
    "Erf": lambda x, _: torch.erf(x[0]),
    "Expand": lambda x, _: x[0] * torch.ones(x[1].tolist(), dtype=x[0].dtype),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, _: x[0].mean(dim=(2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, _: functional.hardswish(x[0]),
    "Identity": lambda x, _: x[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, options: functional.leaky_relu(x[0], options.get("alpha", 0.01)),
    "MatMul": lambda x, _: x[0] @ x[1],
    "MaxPool": _max_pool,
    "Mul": lambda x, _: x[0] * x[1],
    "Pad": _pad_node,
    "Pow": lambda x, _: x[0] ** x[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda x, _: x[0].relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x, _: torch.tensor(x[0].shape),
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": lambda x, _: x[0].sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda x, _: x[0] - x[1],
    "Tanh": lambda x, _: x[0].tanh(),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
