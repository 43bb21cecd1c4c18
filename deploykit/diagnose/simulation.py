"""The integer network as floats on grids, layer by layer, so that one layer can be changed at once.

    y = grid(f(x; P))      grid(x) = scale * (clip(rint(x / scale) + z, -128, 127) - z)

f: the layer of the float graph; P: its parameters, or what their integers stand for. Up to float32
rounding near ties this is what the integers mean, and any layer may take floats instead: a change
costs what lies behind it alone.
Source: Jacob et al. 2018, section 3 (simulated quantization).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from deploykit.quantize.layer_network import batch_of, layer_network, run_layer
from deploykit.quantize.operators import Kind
from deploykit.quantize.structure import Layer
from deploykit.runtime.ort import OutputEvaluator
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.network import Network
from deploykit.spec.progress import Advance, ignore
from deploykit.spec.quantized import Quantization


@dataclass(frozen=True, eq=False)
class Parameters:
    """What stands in place of a layer's own numbers.

    values: by place among its first node's inputs; body: of an island, all of it. Neither: its own.
    """

    values: Mapping[int, AnyArray] = field(default_factory=dict)
    body: Network | None = None

    @property
    def own(self) -> bool:
        """Whether nothing is replaced."""
        return not self.values and self.body is None


OWN = Parameters()


@dataclass(frozen=True)
class Form:
    """How a layer computes. grid: of its output; None leaves that in float."""

    parameters: Parameters = OWN
    grid: Quantization | None = None


FLOAT = Form()


class Simulation:
    """Runs a float graph layer by layer; layers that answer in whole numbers are left out."""

    def __init__(self, network: Network, layers: Sequence[Layer]) -> None:
        self.network = network
        self._batch = batch_of(network)
        self.layers = tuple(layer for layer in layers if layer.kind is not Kind.ARG_MAX)
        self._runners: dict[tuple[str, Parameters], tuple[Network, OutputEvaluator]] = {}

    def all_tensors(
        self, inputs: Tensors, forms: Mapping[str, Form], progress: Advance = ignore
    ) -> dict[str, AnyArray]:
        """Every layer's output, and the inputs. forms: by layer; one that is missing is float."""
        tensors = dict(inputs)
        for place, layer in enumerate(self.layers):
            tensors[layer.output] = self.output(layer, tensors, forms.get(layer.name, FLOAT))
            progress(place + 1, len(self.layers))
        return tensors

    def output(self, layer: Layer, tensors: Tensors, form: Form) -> AnyArray:
        """One layer's. tensors: what it reads among them."""
        return on_grid(self.computed(layer, tensors, form.parameters), form.grid)

    def computed(self, layer: Layer, tensors: Tensors, parameters: Parameters) -> AnyArray:
        """One layer's output before its grid."""
        network, evaluate = self._runner(layer, parameters)
        read = {name: tensors[name] for name in layer.inputs}
        return run_layer(network, read, evaluate, self._batch)

    def changed(
        self,
        base: Tensors,
        known: Mapping[str, AnyArray],
        forms: Mapping[str, Form],
        ends: Iterable[str],
        recomputed: Iterable[str] = (),
    ) -> dict[str, AnyArray]:
        """The tensors `ends` where those in `known` are others than in `base`.

        base: every tensor under `forms`. recomputed: layers whose own form is another than in base.
        Only what reads something that changed is computed.
        """
        names = set(recomputed)
        moved = dict(known)
        last = {name: place for place, layer in enumerate(self.layers) for name in layer.inputs}
        kept = set(ends)
        for place, layer in enumerate(self.layers):
            if layer.output in known:
                continue
            if layer.name not in names and not any(name in moved for name in layer.inputs):
                continue
            read = {name: moved.get(name, base[name]) for name in layer.inputs}
            found = self.output(layer, read, forms.get(layer.name, FLOAT))
            if layer.name in names or not np.array_equal(found, base[layer.output]):
                moved[layer.output] = found
            for name in layer.inputs:
                if last[name] == place and name not in kept:
                    moved.pop(name, None)
        return {name: moved.get(name, base[name]) for name in kept}

    def _runner(self, layer: Layer, parameters: Parameters) -> tuple[Network, OutputEvaluator]:
        key = (layer.name, parameters if not parameters.own else OWN)
        if key not in self._runners:
            self._runners[key] = (_replaced(self.network, layer, parameters), OutputEvaluator())
        return self._runners[key]


def on_grid(values: AnyArray, grid: Quantization | None) -> AnyArray:
    """The numbers of the grid that are nearest; the values themselves without one."""
    return values if grid is None else grid.dequantize(grid.quantize(values))


def _replaced(network: Network, layer: Layer, parameters: Parameters) -> Network:
    if parameters.body is not None:
        return parameters.body
    found = layer_network(network, layer)
    first = next(node for node in found.model.graph if node.name == layer.nodes[0].name)
    for place, array in parameters.values.items():
        held = first.inputs[place]
        assert held is not None
        held.const_value = ir.tensor(array, name=held.name)
    return found
