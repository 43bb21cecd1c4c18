"""The scale and zero point that calibration asks for, before runtimes have a say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from deploykit.quantize.calibration import Calibration
from deploykit.quantize.histogram import Histogram, merge
from deploykit.quantize.scales import activation_quantization, input_quantization
from deploykit.quantize.sharing import Group, fixed_quantization
from deploykit.quantize.structure import Layer
from deploykit.spec.quantized import Quantization


def wanted_quantization(
    group: Group,
    layers: Sequence[Layer],
    sources: Collection[str],
    histograms: Mapping[str, Histogram],
    method: Calibration,
    needed: tuple[float, float] | None = None,
) -> Quantization:
    """Of a group of tensors. histograms: of its makers, by name; sources: the graph's inputs.

    needed: a range that a computed group holds at least, None where nothing asks for one.
    """
    merged = merge([histograms[name] for name in group.makers])
    if any(name in sources for name in group.makers):
        return input_quantization(merged, method)
    maker = next(layer for layer in layers if layer.output == group.makers[0])
    fixed = fixed_quantization(maker)
    if fixed is not None:
        return fixed
    return activation_quantization(merged, method, group.bounds.low, group.bounds.high, needed)
