"""Several activations at one node: residuals, broadcasting gates, concatenations, more inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.graph.grammar.growing import Growing, Step, ints


def branch(growing: Growing) -> None:
    """Read an earlier tensor next, so that it gets several readers."""
    growing.last = growing.pick(*growing.shapes)


def residual(growing: Growing) -> None:
    """The last tensor and one or two earlier ones of its shape, combined."""
    others = growing.others(growing.shape)
    if not others:
        return
    other = growing.pick(*others)
    kind = growing.pick("Add", "Add", "Add", "Sub", "Mul", "Max", "Min", "Sum", "Div")
    start = growing.last
    if kind == "Mul":
        growing.bounded()
        start = growing.last
    elif kind == "Div":
        growing.last = other
        growing.positive()
        other = growing.last
    sources = [start, other, growing.pick(*others)] if kind == "Sum" else [start, other]
    if kind not in {"Div", "Sum"} and growing.chance(0.5):
        sources.reverse()
    growing.join(kind, growing.shape, sources)


def broadcast(growing: Growing) -> None:
    """Combine with an earlier tensor that has size 1 along some axes, or fewer axes."""
    shape = growing.shape
    fitting = [
        name
        for name, other in growing.shapes.items()
        if other != shape
        and len(other) <= len(shape)
        and all(a in (1, b) for a, b in zip(other[::-1], shape[::-1], strict=False))
    ]
    if not fitting:
        return
    start, other = growing.last, growing.pick(*fitting)
    growing.last = other
    growing.bounded()
    pair = [start, growing.last]
    if growing.chance(0.3):
        pair.reverse()
    growing.join(growing.pick("Mul", "Add", "Sub", "Max"), shape, pair)


def excite(growing: Growing) -> None:
    """Squeeze and excite: x * sigmoid(f(mean(x))), with 1x1 convolutions or linears."""
    if not growing.is_image:
        return
    start, shape = growing.last, growing.shape
    count, inner = shape[1], growing.count(1, 3)
    growing.put("GlobalAveragePool", (1, count, 1, 1))
    through_vectors = growing.chance(0.4)
    if through_vectors:
        growing.put("Flatten", (1, count))
    for outputs, kind in ((inner, "Relu"), (count, growing.pick("Sigmoid", "HardSigmoid"))):
        inputs = growing.shape[1]
        if through_vectors:
            kernel = growing.kernels(outputs, inputs)
            growing.put("Gemm", (1, outputs), kernel, growing.biases(outputs), transB=1)
        else:
            kernel = growing.kernels(outputs, inputs, 1, 1)
            growing.put("Conv", (1, outputs, 1, 1), kernel, growing.biases(outputs))
        growing.put(kind, growing.shape)
    if through_vectors and growing.chance(0.5):
        growing.put("Unsqueeze", (1, count, 1, 1), ints(2, 3))
    elif through_vectors:
        growing.put("Reshape", (1, count, 1, 1), ints(1, growing.pick(count, -1), 1, 1))
    growing.join("Mul", shape, [start, growing.last][:: growing.pick(1, -1)])


def spatial_gate(growing: Growing) -> None:
    """x * sigmoid(one map)."""
    if not growing.is_image:
        return
    start, shape = growing.last, growing.shape
    one = (1, 1, *shape[2:])
    if growing.chance(0.5):
        growing.put("Conv", one, growing.kernels(1, shape[1], 1, 1), growing.biases(1))
    else:
        growing.put(growing.pick("ReduceMean", "ReduceMax"), one, ints(1), keepdims=1)
    growing.put("Sigmoid", one)
    growing.join("Mul", shape, [start, growing.last])


def concat(growing: Growing) -> None:
    """Behind one another along any axis: other tensors, itself, constants."""
    shape = growing.shape
    axis = 1 if growing.chance(0.6) else growing.count(1, len(shape) - 1)
    rest = (*shape[:axis], *shape[axis + 1 :])
    fitting = [
        name
        for name, other in growing.shapes.items()
        if len(other) == len(shape) and (*other[:axis], *other[axis + 1 :]) == rest
    ]
    parts: list[Any] = [growing.last]
    sizes = [shape[axis]]
    for _ in range(growing.count(1, 2)):
        if growing.chance(0.25):
            width = growing.count(1, 2)
            constant = np.zeros((*shape[:axis], width, *shape[axis + 1 :]))
            column = [1] * len(shape)
            column[axis] = width
            constant += growing.rng.choice([0.0, 1.0, 2.0], size=column)
            if growing.chance(0.4):
                constant += growing.rng.normal(size=constant.shape)
            parts.append(constant)
            sizes.append(width)
        else:
            parts.append(growing.pick(*fitting))
            sizes.append(growing.shapes[parts[-1]][axis])
    order = growing.rng.permutation(len(parts))
    whole = (*shape[:axis], sum(sizes), *shape[axis + 1 :])
    if growing.fits(whole) and whole[axis] <= 16:
        named = growing.pick(axis, axis - len(shape))
        growing.read("Concat", whole, [parts[k] for k in order], axis=named)


def another_input(growing: Growing) -> None:
    """A second input of the network, read next."""
    if len(growing.inputs) < 3:
        name = f"input{len(growing.inputs)}"
        shape = growing.shape if growing.chance(0.6) else (1, growing.count(1, 3), 4, 4)
        growing.inputs.append(name)
        growing.shapes[name] = shape
        growing.last = name


def another_output(growing: Growing) -> None:
    """The last tensor is an output of the network too."""
    if growing.nodes and growing.last not in growing.inputs:
        growing.outputs.append(growing.last)


STEPS: dict[str, Step] = {
    "branch": branch,
    "residual": residual,
    "broadcast": broadcast,
    "excite": excite,
    "spatial_gate": spatial_gate,
    "concat": concat,
    "another_input": another_input,
    "another_output": another_output,
}
