"""A small ViT (Dosovitskiy et al. 2021; width and heads of DeiT-tiny), plain torch, two ways."""

from __future__ import annotations

import torch
from torch import nn

WIDTH = 192
HEADS = 3
DEPTH = 4
PATCH = 16
SIZE = 224


class FusedAttention(nn.Module):
    """Multi-head self-attention with one linear for q, k and v, as timm writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, D] -> the same."""
        samples, tokens, width = x.shape
        parts = self.qkv(x).reshape(samples, tokens, 3, HEADS, width // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * (width // HEADS) ** -0.5) @ k.transpose(-2, -1)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(samples, tokens, width)
        out: torch.Tensor = self.proj(mixed)
        return out


class TorchAttention(nn.Module):
    """The same by nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, D] -> the same."""
        out: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class Block(nn.Module):
    """Attention and a perceptron, each behind a layer norm and inside a sum."""

    def __init__(self, attention: type[nn.Module]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention = attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, D] -> the same."""
        x = x + self.attention(self.norm1(x))
        y: torch.Tensor = x + self.mlp(self.norm2(x))
        return y


class Vit(nn.Module):
    """[N, 3, 224, 224] -> [N, classes]."""

    def __init__(self, attention: type[nn.Module], classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.zeros(1, (SIZE // PATCH) ** 2 + 1, WIDTH))
        self.blocks = nn.Sequential(*(Block(attention) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, classes)
        generator = torch.Generator().manual_seed(0)
        for parameter in (self.token, self.position):
            nn.init.normal_(parameter, 0.0, 0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_weight, 0.0, WIDTH**-0.5, generator=generator)
                nn.init.normal_(module.in_proj_bias, 0.0, 0.1, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, from the class token."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1) + self.position
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def vit() -> nn.Module:
    """2.3 million parameters; q, k and v from one linear."""
    return Vit(FusedAttention)


def vit_mha() -> nn.Module:
    """The same network; attention by nn.MultiheadAttention."""
    return Vit(TorchAttention)
