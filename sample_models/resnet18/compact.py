"""A gated network with fewer channels inside its blocks, and the way back."""

from __future__ import annotations

import torch
from model import ResNet18, Widths, gated, gates
from torch import Tensor

_INNER = ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var")
_GATE = ("gate.post_z_mu", "gate.post_z_logD")
FAST = 8
"""Kernels are faster at multiples of this."""


def opened(network: ResNet18) -> list[Tensor]:
    """By block, True [C] where the gate is open."""
    return [torch.as_tensor(gate.is_open()) for gate in gates(network)]


def kept(network: ResNet18, multiple: int) -> list[Tensor]:
    """By block, True [C] for open gates and as many closed ones as make up a multiple."""
    return [_filled(gate.is_open(), multiple) for gate in gates(network)]


def _filled(is_open: Tensor, multiple: int) -> Tensor:
    wanted = -(-int(is_open.sum()) // multiple) * multiple
    first = torch.argsort(~is_open, stable=True)[:wanted]
    return torch.zeros_like(is_open).index_fill(0, first, True)


def compacted(network: ResNet18, keep: list[Tensor]) -> ResNet18:
    """A copy with these channels alone; it computes the same in eval mode if all open ones stay."""
    state = network.state_dict()
    for place, mask in enumerate(keep):
        for name in (*_INNER, *_GATE):
            key = f"blocks.{place}.{name}"
            state[key] = state[key][mask]
        key = f"blocks.{place}.conv2.weight"
        state[key] = state[key][:, mask]
    small = gated(Widths.of(state))
    small.load_state_dict(state)
    return small


def without_closed(network: ResNet18) -> ResNet18:
    """A copy with the open channels alone."""
    return compacted(network, opened(network))


def expanded(
    state: dict[str, Tensor], small: dict[str, Tensor], keep: list[Tensor]
) -> dict[str, Tensor]:
    """The state dict `state`, with what `small` knows of the channels in `keep` in its place."""
    placed = {name: values.clone() for name, values in small.items()}
    for place, mask in enumerate(keep):
        prefix = f"blocks.{place}."
        for name in (*_INNER, *_GATE):
            placed[prefix + name] = state[prefix + name].clone()
            placed[prefix + name][mask] = small[prefix + name]
        reads = state[prefix + "conv2.weight"].clone()
        reads[:, mask] = small[prefix + "conv2.weight"]
        placed[prefix + "conv2.weight"] = reads
    return placed
