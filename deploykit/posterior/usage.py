"""What only the network can say about a layer of the checkpoint."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from deploykit.posterior.activation_range import told_sign, with_constants_on_grid
from deploykit.posterior.recognise import Recognised, RecognisedLayer
from deploykit.spec.posterior import LayerPosterior


def as_used(recognised: Recognised, twin: nn.Module) -> Recognised:
    """Without tensors that a library saves though the layer does not use them.

    twin: a network of torch layers under the checkpoint's names.
    """
    return replace(recognised, layers=tuple(_used(layer, twin) for layer in recognised.layers))


def seen_in(twin: nn.Module, posterior: LayerPosterior) -> LayerPosterior:
    """The same, knowing along which axis of the weight the output channels run."""
    layer = twin.get_submodule(posterior.name)
    if posterior.precision is not None:
        return with_constants_on_grid(layer, told_sign(layer, posterior))
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return replace(posterior, output_axis=1 if layer.groups == 1 else None)
    if isinstance(layer, nn.Embedding):
        return replace(posterior, output_axis=1)
    return posterior


def _used(layer: RecognisedLayer, twin: nn.Module) -> RecognisedLayer:
    unused = layer.family.maybe_unused
    if not unused or getattr(twin.get_submodule(layer.name), "bias", None) is not None:
        return layer
    kept = {key: value for key, value in layer.tensors.items() if key not in unused}
    return replace(layer, tensors=kept)
