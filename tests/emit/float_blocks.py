"""Blocks of the architectures that people ship, small, in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

Image = tuple[int, ...]


class Gated(nn.Module):
    """MobileNetV3: expand, depthwise, squeeze-and-excite, project, a sum around it."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, 1, 2, groups=16), nn.Hardswish())
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        gate = self.excite(torch.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1))))
        out: torch.Tensor = x + self.project(y * functional.hardsigmoid(gate))
        return out


class LinearGated(nn.Module):
    """A gate whose squeeze is a linear layer on a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate.view(*gate.shape, 1, 1)


class Dense(nn.Module):
    """DenseNet: batch norms of what is joined so far, then an average pool."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(7))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            parts.append(conv(torch.relu(norm(torch.cat(parts, 1)))))
        return functional.avg_pool2d(torch.cat(parts, 1), 2)


class Shuffled(nn.Module):
    """ShuffleNetV2: half of the channels around a branch, then a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, 1)
        y = torch.cat([left, self.branch(right)], 1)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return y.reshape(batch, channels, height, width)


class Branches(nn.Module):
    """Inception: a padded average pool that counts its pads beside asymmetric convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Conv2d(6, 4, (1, 7), padding=(0, 3))
        self.columns = nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        self.pooled = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = functional.avg_pool2d(x, 3, 1, 1)
        reduced = functional.max_pool2d(x, 3, 1, 1)
        return torch.cat([self.columns(self.rows(x)), self.pooled(pooled), reduced], 1)


class UpAndDown(nn.Module):
    """U-Net: down, up by both transposed convolutions, joined with what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.small = nn.ConvTranspose2d(8, 4, 2, 2)
        self.wide = nn.ConvTranspose2d(8, 4, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(x)
        return torch.cat([self.small(y), torch.relu(self.wide(y)), x], 1)


class Detector(nn.Module):
    """YOLO: split, SiLU, three max pools in a row, nearest resize, all joined."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.chain = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(12, 6, 3, 2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(functional.silu(self.enter(x)).chunk(2, 1))
        parts.append(functional.silu(self.chain(parts[-1])))
        y = functional.silu(self.down(torch.cat(parts, 1)))
        pools = [y]
        for _ in range(3):
            pools.append(functional.max_pool2d(pools[-1], 5, 1, 2))
        return torch.cat([functional.interpolate(torch.cat(pools, 1), scale_factor=2), x], 1)


class Attention(nn.Module):
    """ViT: patches, a class token, positions, one block, the token's class."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.position = nn.Parameter(torch.randn(1, 7, 12))
        self.joint, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.first, self.second = nn.LayerNorm(12), nn.LayerNorm(12)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        batch, count, width = x.shape
        joint = self.joint(self.first(x)).reshape(batch, count, 3, 2, width // 2)
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        out: torch.Tensor = self.head((x + self.mlp(self.second(x)))[:, 0])
        return out


def keyword_spotter() -> nn.Module:
    """DS-CNN: separable convolutions on one channel of 49 by 10."""
    return nn.Sequential(
        nn.Conv2d(1, 8, (10, 4), 2, padding=(5, 1)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 12),
    )


def over_time() -> nn.Module:
    """Convolutions and a pool along one axis."""
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, padding=1),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


BLOCKS: Mapping[str, tuple[Callable[[], nn.Module], Image]] = {
    "gated": (Gated, (1, 8, 9, 7)),
    "linear gated": (LinearGated, (1, 8, 9, 7)),
    "dense": (Dense, (1, 8, 6, 8)),
    "shuffled": (Shuffled, (1, 12, 6, 5)),
    "branches": (Branches, (1, 6, 9, 8)),
    "up and down": (UpAndDown, (1, 4, 8, 6)),
    "detector": (Detector, (1, 4, 8, 6)),
    "keyword spotter": (keyword_spotter, (1, 1, 49, 10)),
    "over time": (over_time, (1, 3, 12)),
    "attention": (Attention, (1, 3, 8, 12)),
}
"""By name: the module, and the shape that it takes."""

TRANSPOSES = {"shuffled": 1, "over time": 1, "attention": 4}
"""Where axes have to change places: a shuffle's two, a sequence's at the input, the heads'."""
