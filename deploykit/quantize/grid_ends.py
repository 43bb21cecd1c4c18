"""Where grids that a network came with end, beside where its activations do.

A layer takes in a Relu or Clip as the saturation of its output's integers. On a given grid that
holds only where the integers end where the activation does: symmetric int8 behind a Relu holds
negative numbers too, and 4 bits do not fill int8. There the activation stays an operator.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from deploykit.spec.given import ActivationGrid

HANDING_ON = frozenset((
    "Concat", "DepthToSpace", "Flatten", "Gather", "MaxPool", "Pad", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
"""Operators that give what they read, at its scale."""


def grid_behind(value: ir.Value, grids: Mapping[str, ActivationGrid]) -> ActivationGrid | None:
    """The grid of a tensor, or of what its only reader hands it on to."""
    while str(value.name) not in grids:
        readers = [use.node for use in value.uses()]
        if len(readers) != 1 or value.is_graph_output() or readers[0].op_type not in HANDING_ON:
            return None
        value = readers[0].outputs[0]
    return grids[str(value.name)]


def saturates(grid: ActivationGrid, low: float | None, high: float | None) -> bool:
    """Whether int8's saturation on this grid is a clip to low .. high; None: no bound."""
    first, _ = grid.ends
    scale, zero = grid.quantization.scale, grid.quantization.zero_point
    ends_high = high is None or round(high / scale) + zero >= grid.high
    return grid.fills and (low is None or first == low) and ends_high
