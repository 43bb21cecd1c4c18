"""Plain linear layers that AMLab's L0 code stores transposed: MAPDense, weight [I, C].

Its keys are those of torch.nn.Linear, so that only a network of torch layers, next to layers that
are L0Dense or L0Conv2d, tells them apart, and only by shape. A MAPDense of the factory itself
computes x @ weight with its own shape and needs nothing. Source: L0_regularization 39a5fe6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.l0 import L0_AMLAB
from deploykit.posterior.recognise import Recognised, join_key
from deploykit.spec.arrays import AnyArray


def with_torch_orientation(
    twin: nn.Module, recognised: Recognised, tensors: Mapping[str, AnyArray]
) -> Mapping[str, AnyArray]:
    """The tensors, with weights of plain linear layers [I, C] -> [C, I] where AMLab wrote them."""
    if not _from_amlab(recognised):
        return tensors
    turned: dict[str, AnyArray] = {}
    for key, layer in _plain_linears(twin, recognised).items():
        shape = (layer.out_features, layer.in_features)
        if tensors[key].shape == shape[::-1] != shape:
            turned[key] = tensors[key].T
    return dict(tensors) | turned


def require_told_apart(network: nn.Module, recognised: Recognised, swapped: Sequence[str]) -> None:
    """Refuse a square plain linear layer of a twin, whose orientation nothing tells.

    swapped: names of the network's Bayesian layers; with some, its torch layers were trained too.
    """
    if swapped or not _from_amlab(recognised):
        return
    for key, layer in _plain_linears(network, recognised).items():
        if layer.out_features == layer.in_features:
            raise ArchitectureError(
                f"'{key}' is square, and beside AMLab's L0 layers it may be a MAPDense, which is "
                "stored transposed; let the factory build the network that was trained, with its "
                "MAPDense or nn.Linear"
            )


def _from_amlab(recognised: Recognised) -> bool:
    return any(layer.family is L0_AMLAB for layer in recognised.layers)


def _plain_linears(network: nn.Module, recognised: Recognised) -> Mapping[str, nn.Linear]:
    named = {
        join_key(name, "weight"): module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    }
    return {key: module for key, module in named.items() if key in recognised.plain}
