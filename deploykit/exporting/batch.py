"""What --batch dynamic, and a batch of several samples, ask of a network."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.errors import ConfigError, GraphError
from deploykit.graph.passes.constants import fold_constants
from deploykit.graph.sample_axis import sample_places
from deploykit.quantize.structure import build_structure
from deploykit.spec.inputs import InputSpec
from deploykit.spec.network import Network, static_shape
from deploykit.spec.quantized import Batch


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
    if batch is Batch.DYNAMIC:
        sample_places(fold_constants(network).network)


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
    places = sample_places(network)
    for layer in layers:
        place = places.get(layer.output)
        if place is None or place.axis != 0 or place.outer != 1:
            raise GraphError(
                f"{layer.name}: its tensor of integers does not hold the samples of the batch in "
                "front, which a fixed batch of several needs; export with a batch of one and "
                "--batch dynamic: the files then take any number of samples"
            )
