"""Bayesian Bits: gates that decide bits and channels, trained with layers restated from the paper.

The published modules ask for torch 1.1 and CUDA; the layers of tests.posterior.bayesian_bits_layers
write the same tensors under the same names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import BATCH, Library, Spread, Trained
from tests.libraries.images import Images
from tests.posterior.bayesian_bits_layers import (
    BNQConv2d,
    Holder,
    QConv2d,
    QLinear,
    probability_of_zero,
    quantizers,
)

EPOCHS = 4
STRENGTH = 0.07
"""Of the expected bits in the loss, for a layer of as many products as the largest has."""
WORK = (0.91, 1.0, 0.07)
"""Products of the three layers, of the largest layer's."""


def bayesian() -> nn.Module:
    """A convolution with a folded batch norm, one with a bias, and a linear layer; gates open."""
    pruned = {"pruning": True, "weights": 0.8}
    relu = nn.ReLU()
    return nn.Sequential(
        BNQConv2d(1, 16, 5, stride=2, padding=2, bits=8, given_bits=8, function=relu,
                  quantizers=pruned | {"reach": 4.0}),
        nn.MaxPool2d(2),
        QConv2d(16, 24, 3, bits=8, given_bits=8, function=relu,
                quantizers=pruned | {"reach": 6.0, "weights": 0.5}),
        nn.Flatten(),
        QLinear(600, 10, bits=8, given_bits=None, quantizers={"weights": 0.25}),
    )  # fmt: skip


def twin() -> nn.Module:
    """The same of torch layers: what stands behind a layer is in its place with it."""
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        ),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(16, 24, 3), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(600, 10),
    )


def train(images: Images) -> Trained:
    """Cross entropy plus the expected bits of all quantizers; gates learn faster than weights."""
    network = bayesian().train()
    gates = [one for name, one in network.named_parameters() if "gamma_" in name]
    others = [one for name, one in network.named_parameters() if "gamma_" not in name]
    optimizer = torch.optim.Adam([{"params": others, "lr": 3e-3}, {"params": gates, "lr": 3e-2}])
    inputs, labels = torch.tensor(images.inputs), torch.tensor(images.labels)
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), BATCH):
            piece = order[start : start + BATCH]
            cost = expected_bits(network)
            loss = functional.cross_entropy(network(inputs[piece]), labels[piece]) + STRENGTH * cost
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval()
    state = {"model_state": network.state_dict(), "param_optim": {"state": {}, "param_groups": []}}
    return Trained(
        state, lambda x: unrounded(network, x), lambda x: drawn(network, x), rounded=network
    )


def expected_bits(network: nn.Module) -> Tensor:
    """Of all quantizers, each counting for the work that its layer does."""
    layers = [layer for layer in network.children() if quantizers(layer)]
    costs = [
        work * one.cost()
        for work, layer in zip(WORK, layers, strict=True)
        for one in quantizers(layer)
    ]
    return torch.stack(costs).sum()


def unrounded(network: nn.Module, x: Tensor) -> Tensor:
    """The evaluation forward with activations held to their ranges, and not rounded in them.

    What pruned channels give is a constant, which is rounded as in evaluation.
    """
    for layer in network.children():
        held = getattr(layer, "activation_quantizer", None)
        if not isinstance(held, Holder):
            x = layer(x)
            continue
        layer.activation_quantizer = nn.Identity()
        x = layer(x)
        layer.activation_quantizer = held
        top = held.quantizer.step() * (2 ** held.quantizer.bits() - 1)
        gates: Tensor = layer.get_parameter("weight_quantizer.quantizer.gamma_2")
        closed = (probability_of_zero(gates) >= 0.34)[:, None, None]
        x = torch.where(closed, held(x), x.clamp(torch.zeros(()), top))
    return x


def drawn(network: nn.Module, x: Tensor) -> Tensor:
    """One draw of all gates; batch norms keep the statistics that they have."""
    held = quantizers(network)
    for one in held:
        one.train()
    y: Tensor = network(x)
    for one in held:
        one.eval()
    return y


LIBRARY = Library(
    name="bayesian_bits",
    package="torch",
    requirements=(),
    train=train,
    families=frozenset({"Bayesian Bits"}),
    factory="twin",
    spread=Spread.OTHERWISE,  # activations' gates are drawn too
)
