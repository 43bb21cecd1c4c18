"""Small networks that tests export: `tests.small_models:NAME` is a factory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

RESIDUAL_SHAPE = (1, 3, 32, 32)


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + x), the way around a 1x1 convolution where it strides."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.around = nn.Sequential(around, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.around(x))


def residual() -> nn.Module:
    """Stem, 3x3 stride-2 max pool with padding, two blocks, global average pool, linear."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(8, 8, 1),
        Block(8, 12, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


class CumulativeSum(nn.Module):
    """Each feature and all before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, F] -> the same."""
        return torch.cumsum(x, dim=1)


def cumulative() -> nn.Module:
    """Holds an operator that neither format has; takes [N, 1, 4, 4]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), CumulativeSum(), nn.Linear(4, 3))


def probabilities() -> nn.Module:
    """Ends in a softmax; takes [N, 1, 4, 4]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1))


def linear() -> nn.Module:
    """The least network there is."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


class TwoTowers(nn.Module):
    """An image through convolutions and a vector through a linear, summed; two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 3, 2)
        self.side = nn.Linear(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, audio: Tensor, meta: Tensor) -> dict[str, Tensor]:
        """audio: [N, 1, 12, 12]; meta: [N, 8]."""
        trunk = torch.relu(self.conv2(torch.relu(self.conv1(audio)))).mean((2, 3))
        joined = trunk + torch.relu(self.side(meta))
        return {"scores": self.head(joined), "embedding": joined}


def two_towers() -> nn.Module:
    """Takes audio [N, 1, 12, 12] and meta [N, 8]."""
    return TwoTowers()


class Reader(nn.Module):
    """Tokens: embedding and positions, one block of attention, the mean, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.positions = nn.Parameter(torch.zeros(12, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.wide = nn.Linear(16, 32)
        self.narrow = nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [N, 12] whole numbers."""
        x = self.tokens(tokens) + self.positions
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 4, dim=-1) @ v)
        x = x + self.narrow(torch.relu(self.wide(x)))
        scores: Tensor = self.head(x.mean(1))
        return scores


def reader() -> nn.Module:
    """Takes tokens [N, 12] from 0 to 49."""
    return Reader()


class Answers(nn.Module):
    """Scores and the largest of them; takes [N, 1, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Classes [N]."""
        scores = self.head(torch.relu(self.inner(x.flatten(1))))
        return torch.softmax(scores, dim=1).argmax(1)


def answers() -> nn.Module:
    """Ends in an ArgMax of a softmax."""
    return Answers()


def save_random(network: nn.Module, path: Path, seed: int = 0) -> Path:
    """A checkpoint of the network with random weights and random batch norm statistics."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(noise.abs() + 0.5)
        elif tensor.ndim > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
    torch.save(state, path)
    return path
