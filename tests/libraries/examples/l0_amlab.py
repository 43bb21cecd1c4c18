"""L0 layers of AMLab, saved as their scripts save: with the running average that they evaluate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.libraries.frame import BATCH, Library, Trained
from tests.libraries.images import Images
from tests.libraries.restated import PACKAGE, gated, gated_forward, gated_twin, initialised
from tests.posterior.l0_layers import L0Conv2d, L0Dense, hard_concrete

START = {"qz_loga": 1.0, "bias": 0.0}
PENALTIES = {"0": 400.0, "3": 400.0, "8": 60.0}
"""Nats for each open gate of a layer: a channel is many more products than an input."""
DECAY = 0.99
EPOCHS = 12


def bayesian() -> nn.Module:
    """Gates on the convolutions' outputs and on the linear layer's inputs."""
    return gated(L0Conv2d, lambda _: nn.Identity(), L0Dense)


def twin() -> nn.Module:
    """The same of torch layers."""
    return gated_twin()


def expected_open(gates: Tensor) -> Tensor:
    """Sum of P(z > 0) = sigmoid(a + 2/3 ln 11); equation 12."""
    return torch.sigmoid(gates + 2 / 3 * math.log(11)).sum()


def penalty(network: nn.Module) -> Tensor:
    """Of every layer's gates."""
    total = torch.zeros(())
    for layer, nats in PENALTIES.items():
        total = total + nats * expected_open(network.get_parameter(f"{layer}.qz_loga"))
    return total


def train(images: Images) -> Trained:
    """Cross entropy plus the expected number of open gates; averages of every parameter."""
    network = bayesian()
    initialised(network, START)
    averages = [torch.zeros_like(value) for value in network.parameters()]
    inputs, labels = torch.tensor(images.inputs), torch.tensor(images.labels)
    optimizer, steps = torch.optim.Adam(network.parameters(), 5e-3), 0
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), BATCH):
            piece = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(network(inputs[piece]), labels[piece])
            loss = loss + penalty(network) / len(labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps += 1
            with torch.no_grad():
                for name, value in network.named_parameters():
                    if name.endswith("qz_loga"):
                        value.clamp_(-4.605, 4.605)
                for average, value in zip(averages, network.parameters(), strict=True):
                    average.mul_(DECAY).add_((1 - DECAY) * value)
    state = {
        "epoch": EPOCHS, "state_dict": network.state_dict(), "best_prec1": 0.0,
        "beta_ema": DECAY, "avg_params": averages, "steps_ema": steps,
    }  # fmt: skip
    averaged = bayesian()
    with torch.no_grad():
        for mine, average in zip(averaged.parameters(), averages, strict=True):
            mine.copy_(average / (1 - DECAY**steps))

    def draw(x: Tensor) -> Tensor:
        outputs: Tensor = averaged.train()(x)
        return outputs

    return Trained(state, lambda x: mean_forward(averaged, x), draw)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The averaged network, each gate at clip(1.2 sigmoid(a) - 0.1, 0, 1)."""
    conv1, conv2, linear = network[0], network[3], network[8]
    gates = [hard_concrete(layer.qz_loga, False) for layer in (conv1, conv2, linear)]
    return gated_forward(
        x,
        (conv1.weights, conv2.weights, (linear.weights * gates[2][:, None]).T),
        (conv1.bias, conv2.bias, linear.bias),
        (gates[0], gates[1]),
    )


LIBRARY = Library(
    name="l0_amlab",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"L0 (AMLab)"}),
)
