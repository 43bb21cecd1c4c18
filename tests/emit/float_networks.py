"""Float networks as the writers get them: small torch modules, captured and normalized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from deploykit.graph.capture import capture
from deploykit.graph.normalize import normalize
from deploykit.spec.network import Network


class Residual(nn.Module):
    """A block with an identity and one with a projection, as in ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.second = nn.Sequential(
            nn.Conv2d(8, 16, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)
        )
        self.projection = nn.Conv2d(8, 16, 1, 2)
        self.head = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.stem(image)
        features = torch.relu(features + self.first(features))
        features = torch.relu(self.projection(features) + self.second(features))
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]


class TwoReaders(nn.Module):
    """A convolution whose output two activations read, so that neither can be fused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.conv(image)
        return torch.relu(features) + nn.functional.relu6(features)


def lenet() -> nn.Module:
    """Odd sizes before Flatten, so that C, H and W all differ."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 5, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def depthwise() -> nn.Module:
    """Two separable blocks, one with a depth multiplier."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, padding=1),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 12, 1),
        nn.Conv2d(12, 24, 3, 2, padding=1, groups=12),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


MODULES: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lenet, (1, 1, 28, 32)),
    "residual": (Residual, (1, 3, 16, 16)),
    "depthwise separable": (depthwise, (1, 3, 17, 20)),
    "padded strides": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, (2, 1), padding=(1, 2), dilation=(1, 2)),
            nn.Conv2d(8, 4, 3, 3, padding=1),
        ),
        (1, 3, 19, 22),
    ),
    "pool of never negative values": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        (1, 3, 18, 18),
    ),
    "pool before its activation": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), nn.ReLU6()),
        (1, 3, 18, 18),
    ),
    "pool of values around zero": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 1)),
        (1, 3, 18, 18),
    ),
    "pool in ceil mode": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 2, ceil_mode=True)),
        (1, 3, 17, 17),
    ),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.AvgPool2d(3, 2)),
        (1, 6, 9, 11),
    ),
    "other bounds": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Hardtanh(-0.1, 0.2), nn.Conv2d(4, 4, 1)),
        (1, 2, 6, 6),
    ),
    "two readers": (TwoReaders, (1, 2, 6, 7)),
    "activation after flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.Flatten(), nn.ReLU(), nn.Linear(3 * 4 * 5, 4, bias=False)
        ),
        (1, 2, 6, 7),
    ),
    "flattened output": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()),
        (1, 2, 6, 7),
    ),
    "batch of two": (lenet, (2, 1, 28, 32)),
    "perceptron": (
        lambda: nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)),
        (1, 12),
    ),
}
"""By name: the module, and the shape [N, C, H, W] or [N, F] that it takes."""


def float_network(name: str) -> Network:
    """A row of MODULES with seeded weights."""
    make, shape = MODULES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().eval()
    return normalize(capture(module, {}, np.zeros(shape, np.float32)))
