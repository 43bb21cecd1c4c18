"""What --batch dynamic, and a batch of several samples, ask of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir.passes.common as common

from deploykit.errors import ConfigError, GraphError
from deploykit.exporting.entry import Together
from deploykit.graph.passes.constants import fold_constants
from deploykit.graph.sample_axis import sample_places
from deploykit.quantize.structure import build_structure
from deploykit.spec.difference import relative_difference
from deploykit.spec.inputs import (
    GraphInputs,
    InputSpec,
    count_samples,
    each_input,
    joined_samples,
    some_samples,
)
from deploykit.spec.network import Network, static_shape
from deploykit.spec.quantized import Batch

BATCH_OF_ONE = "give --input-shape a batch of one (--batch dynamic beside it takes any number)"
"""The way out of a fixed batch of several."""

ROUNDING = 1e-3
"""Largest relative difference that float32 sums in another order make."""


def check_batch(inputs: Sequence[InputSpec], batch: Batch) -> None:
    """Refuse --batch dynamic beside inputs that hold another number of samples than one."""
    for spec in inputs if batch is Batch.DYNAMIC else ():
        if spec.shape[0] != 1:
            raise ConfigError(
                f"--batch dynamic: input {spec.name!r} is {list(spec.shape)}; give it a batch of 1 "
                "with --input-shape: the files then take any number of samples"
            )


def check_samples(network: Network, batch: Batch) -> None:
    """Refuse what mixes samples, where files take any number of them.

    network: as it entered: a mean over a batch of one is gone once it is canonical.
    """
    if batch is not Batch.DYNAMIC:
        return
    folded = fold_constants(network).network
    # An exporter states no shape inside a layer, and what has none cannot be followed.
    shaped = common.ShapeInferencePass(data_prop=True)(folded.model.clone()).model
    sample_places(Network(shaped, folded.variance))


def check_fixed(network: Network) -> None:
    """Refuse a fixed batch of several whose samples meet, or do not lie in front, around islands.

    network: as integer_form has it, the batch along axis 0 of every input.
    """
    held = [static_shape(value) for value in network.model.graph.inputs]
    layers = build_structure(network)
    if all(shape is not None and shape[0] == 1 for shape in held):
        return
    if all(layer.region is None for layer in layers):
        return
    places = sample_places(network, BATCH_OF_ONE)
    for layer in layers:
        place = places.get(layer.output)
        if place is None or place.axis != 0 or place.outer != 1:
            raise GraphError(
                f"{layer.name}: its tensor of integers does not hold the samples of the batch in "
                "front, which a fixed batch of several needs; export with a batch of one and "
                "--batch dynamic: the files then take any number of samples"
            )


def check_apart(together: Together, inputs: GraphInputs, batch: Batch) -> None:
    """Refuse a source that gives a sample something else beside others, where that can be tried.

    What the graph says (check_samples) is that of a batch of one; this is the source's own word.
    inputs: [N, ...], of which two are taken, and one of zeros.
    """
    if batch is not Batch.DYNAMIC:
        return
    few = some_samples(inputs, slice(2))
    few = joined_samples(few, each_input(some_samples(inputs, slice(1)), np.zeros_like))
    count = count_samples(few)
    found = together(few)
    if found is None:
        return
    singles = [together(some_samples(few, slice(place, place + 1))) for place in range(count)]
    for name, values in found.items():
        alone = np.concatenate([single[name] for single in singles if single is not None])
        apart = values.shape == alone.shape and relative_difference(alone, values)
        if apart is False or apart > ROUNDING:
            raise GraphError(
                f"output {name} of {count} samples together is not what they give one by one, so "
                "that a sample's answer would depend on the others; leave --batch out, or keep the "
                "samples apart in the network"
            )
