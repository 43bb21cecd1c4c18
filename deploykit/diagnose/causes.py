"""Why a layer costs accuracy, from its numbers."""

from __future__ import annotations

import numpy as np

from deploykit.diagnose.findings import Cause, LayerFinding
from deploykit.diagnose.subject import Opened, Runs, trained_tensors
from deploykit.quantize.nodes import parameter
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray

FEW = 8
"""Few channels are at most one in so many, and hold half of the layer's error."""
OUTLIER = 8.0
"""Largest of a channel's weights over their root mean square; of normal ones 4 at most."""
WIDE = 20.0
"""End of a range over the root mean square of its values; of normal ones behind a Relu 7."""
HALF = 0.5


def cause_of(opened: Opened, runs: Runs, finding: LayerFinding, layer: Layer | None) -> Cause:
    """Of the larger part of a layer's error. layer: None of an input of the network."""
    if layer is not None and layer.kind in WEIGHTED and finding.weights >= finding.activations:
        return _of_weights(finding, layer)
    tensor = finding.name if layer is None else layer.output
    if tensor in trained_tensors(opened):
        return Cause.GIVEN
    if finding.clipped >= HALF:
        return Cause.SATURATION
    grid = opened.grids[tensor]
    typical = float(np.sqrt(np.square(runs.real[tensor], dtype=np.float64).mean()))
    reach = max(abs(end) for end in grid.ends)
    return Cause.WIDE_RANGE if reach > WIDE * typical else Cause.ROUNDING


def _of_weights(finding: LayerFinding, layer: Layer) -> Cause:
    weight = parameter(layer.nodes[0], 1)
    if not finding.channels:
        return Cause.WEIGHTS
    if _peak(weight[finding.channels[0].index]) >= OUTLIER:
        return Cause.OUTLIERS
    most = max(1, len(weight) // FEW)
    held = sum(channel.share for channel in finding.channels[:most])
    return Cause.FEW_CHANNELS if held >= HALF and most < len(weight) else Cause.WEIGHTS


def _peak(row: AnyArray) -> float:
    typical = float(np.sqrt(np.square(row).mean()))
    return float(np.abs(row).max()) / typical if typical > 0.0 else 0.0
