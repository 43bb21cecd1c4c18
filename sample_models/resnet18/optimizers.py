"""SGD for what every network has, Adam for gates, as one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from model import ResNet18, gates

_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4


class Optimizers:
    """Both step together; gates that are settled are left alone."""

    def __init__(self, network: ResNet18, learning_rate: float, gate_learning_rate: float) -> None:
        of_gates = [p for gate in gates(network) for p in gate.parameters()]
        known = {id(p) for p in of_gates}
        others = [p for p in network.parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": _WEIGHT_DECAY},
            {"params": [p for p in others if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.SGD(groups, lr=learning_rate, momentum=_MOMENTUM, nesterov=True)
        ]
        trained = [p for p in of_gates if p.requires_grad]
        if trained:
            self.parts.append(torch.optim.Adam(trained, lr=gate_learning_rate))
        for part, peak in zip(self.parts, (learning_rate, gate_learning_rate), strict=False):
            for group in part.param_groups:
                group["peak"] = peak

    def zero_grad(self) -> None:
        """Of both."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Of both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both, by position."""
        return {str(place): part.state_dict() for place, part in enumerate(self.parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What state_dict left."""
        for place, part in enumerate(self.parts):
            part.load_state_dict(state_dict[str(place)])
