"""What a network runs, observed on an example instead of read from names."""

from __future__ import annotations

from torch import nn

from deploykit.posterior.forward import run_batch, tensors
from deploykit.spec.inputs import GraphInputs, some_samples


def output_layer(module: nn.Module, inputs: GraphInputs) -> str | None:
    """The layer with a weight matrix or kernel that runs last: its rows are the outputs.

    Batch norms and other layers with one weight per channel do not count.
    """
    last: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *_, name=name: last.append(name))
        for name, layer in module.named_modules()
        if _has_matrix(layer)
    ]
    try:
        run_batch(module, tensors(some_samples(inputs, slice(1))))
    finally:
        for handle in handles:
            handle.remove()
    return last[-1] if last else None


def _has_matrix(layer: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in layer.parameters(recurse=False))
