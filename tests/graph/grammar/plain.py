"""Relu, sums and concatenations alone: what the brute-force oracle of completeness knows."""

from __future__ import annotations

from tests.graph.grammar.growing import Growing, Step


def relu(growing: Growing) -> None:
    """max(x, 0)"""
    growing.put("Relu", growing.shape)


def add(growing: Growing) -> None:
    """The sum with an earlier tensor of the same shape."""
    others = growing.others(growing.shape)
    if others:
        growing.join("Add", growing.shape, [growing.last, growing.pick(*others)])


def behind(growing: Growing) -> None:
    """An earlier image behind the last one's channels."""
    shape = growing.shape
    fitting = [
        name
        for name, other in growing.shapes.items()
        if (*other[:1], *other[2:]) == (1, *shape[2:])
    ]
    if growing.is_image and fitting:
        other = growing.pick(*fitting)
        count = shape[1] + growing.shapes[other][1]
        if count <= 12:
            growing.join("Concat", (1, count, *shape[2:]), [growing.last, other], axis=1)


def skip(growing: Growing) -> None:
    """x + conv(relu(conv(x))) with padded kernels."""
    if not growing.is_image:
        return
    start, count, inner = growing.last, growing.shape[1], growing.count(1, 4)
    for index, outputs in enumerate((inner, count)):
        kernel = growing.kernels(outputs, growing.shape[1], 3, 3)
        shape = (1, outputs, *growing.shape[2:])
        growing.put("Conv", shape, kernel, growing.biases(outputs), pads=[1] * 4)
        if index == 0:
            relu(growing)
    growing.join("Add", growing.shape, [growing.last, start])


STEPS: dict[str, Step] = {"relu": relu, "add": add, "behind": behind, "skip": skip}
