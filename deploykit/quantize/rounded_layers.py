"""Every layer's plan by its bits, each made once; and the float network that plans stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from deploykit.quantize.bits import bits_by_layer
from deploykit.quantize.clipping import FULL_BITS
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import Calibrated, assembled, rounded_plan
from deploykit.quantize.settling import Runners
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array
from deploykit.spec.network import Network
from deploykit.spec.parallel import in_parallel
from deploykit.spec.plan import LayerPlan, QuantPlan, Rounding


class RoundedLayers:
    """Plans of layers whose rounding depends on no other layer's bits.

    Rounding in sequence does: its layers are approximated by compensated ones, whole plans are
    made anew.
    """

    def __init__(self, calibrated: Calibrated, options: QuantizationOptions) -> None:
        self.calibrated = calibrated
        self.options = options
        alone = not options.rounding.in_sequence
        self._alone = options if alone else replace(options, rounding=Rounding.COMPENSATED)
        self._made: dict[tuple[str, int], LayerPlan] = {}

    def make(self, wanted: Iterable[tuple[Layer, int]]) -> None:
        """Round these layers at these bits, in parallel, where they are not yet."""
        missing = [one for one in wanted if (one[0].name, one[1]) not in self._made]

        def planned(one: tuple[Layer, int]) -> LayerPlan:
            return self.calibrated.planned(*one, self._alone)

        for (layer, bits), plan in zip(missing, in_parallel(planned, missing), strict=True):
            self._made[layer.name, bits] = plan

    def at(self, layer: Layer, bits: int) -> LayerPlan:
        """The layer's plan at so many bits."""
        self.make([(layer, bits)])
        return self._made[layer.name, bits]

    def plan(self, bits: Mapping[str, int], runners: Runners) -> QuantPlan:
        """The whole plan. bits: of every layer with weights."""
        calibrated = self.calibrated
        asked = replace(self.options.bits, layers=dict(bits))
        options = replace(self.options, bits=asked)
        if options.rounding.in_sequence:
            return rounded_plan(calibrated, options, runners)
        wide = bits_by_layer(calibrated.layers, calibrated.tied, asked, calibrated.trained)
        wanted = [(layer, wide.get(layer.name, FULL_BITS)) for layer in calibrated.layers]
        self.make(wanted)
        plans = tuple(self._made[layer.name, width] for layer, width in wanted)
        return assembled(calibrated, options, plans)


def real_weight(plan: LayerPlan) -> Float64Array:
    """scale * integers of a layer's weight, [O, ...]."""
    assert plan.weight is not None
    values, scale = plan.weight.values, plan.weight.scale.astype(np.float64)
    return np.asarray(values * scale.reshape((-1,) + (1,) * (values.ndim - 1)))


def rounded_network(calibrated: Calibrated, plans: Sequence[tuple[Layer, LayerPlan]]) -> Network:
    """The float network with these layers' weights and biases as their integers stand for them."""
    arrays: dict[str, Float32Array] = {}
    for layer, plan in plans:
        assert plan.weight is not None and plan.bias is not None
        step = np.float64(np.float32(calibrated.chosen[layer.inputs[0]].scale))
        scale = plan.weight.scale.astype(np.float64)
        first = layer.nodes[0]
        for place, array in ((1, real_weight(plan)), (2, plan.bias * scale * step)):
            held = first.inputs[place]
            assert held is not None
            arrays[str(held.name)] = array.astype(np.float32)
    return with_initializers(calibrated.network, arrays)


def with_initializers(network: Network, arrays: Mapping[str, AnyArray]) -> Network:
    """The same graph with other numbers in these initializers."""
    model = network.model.clone()
    for name, array in arrays.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return network.rewritten(model)
