"""SWAG: moments of the weights along SGD, beside the network that they are of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.libraries.frame import BATCH, Library, Trained, descend, small_forward, small_twin
from tests.libraries.images import Images
from tests.libraries.restated import PACKAGE

PASSES = 4
"""Over the images at a constant rate, the moments taken ten times in each."""


def twin() -> nn.Module:
    """A plain network: what SWAG averages."""
    return small_twin()


def train(images: Images) -> Trained:
    """Adam, then SGD at a constant rate; buffers base.MODULE.PARAMETER_mean and _sq_mean."""
    network = twin()
    loss = nn.functional.cross_entropy
    descend(network, lambda x, labels: loss(network(x), labels), images)
    inputs, labels = torch.tensor(images.inputs), torch.tensor(images.labels)
    optimizer, models = torch.optim.SGD(network.parameters(), 0.05, weight_decay=1e-4), 0
    mean = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    square = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for _ in range(PASSES):
        order = torch.randperm(len(labels))
        for step, start in enumerate(range(0, len(labels), BATCH), 1):
            piece = order[start : start + BATCH]
            optimizer.zero_grad()
            loss(network(inputs[piece]), labels[piece]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % 12 == 0:
                with torch.no_grad():
                    for name, value in network.named_parameters():
                        mean[name].mul_(models / (models + 1)).add_(value / (models + 1))
                        square[name].mul_(models / (models + 1)).add_(value**2 / (models + 1))
                models += 1
    state: dict[str, Tensor] = {"n_models": torch.tensor([models])}
    state |= {f"base.{name}_mean": value for name, value in mean.items()}
    state |= {f"base.{name}_sq_mean": value for name, value in square.items()}

    def forward(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        weights, biases = (
            tuple(parameters[f"{place}.{kind}"] for place in (0, 2, 6))
            for kind in ("weight", "bias")
        )
        return small_forward(x, weights, biases)  # type: ignore[arg-type]

    def draw(x: Tensor) -> Tensor:
        spread = {name: (square[name] - mean[name] ** 2).clamp(min=1e-30).sqrt() for name in mean}
        drawn = {name: mean[name] + spread[name] * torch.randn_like(mean[name]) for name in mean}
        return forward(drawn, x)

    return Trained(state, lambda x: forward(mean, x), draw)


LIBRARY = Library(
    name="swag",
    package=PACKAGE,
    requirements=(),
    train=train,
    families=frozenset({"SWAG"}),
    factory="twin",
)
