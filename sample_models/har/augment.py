"""Windows as if the watch had been worn a little otherwise: turned on the wrist, moved faster.

The network has to do for a wrist that it never saw, and ten people are few.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ANGLE = math.radians(15)
"""Deviation of the angle, in radians, about an axis of uniform direction."""
SCALE = 0.1
"""Deviation of the factor that all six channels take."""


def rotations(count: int, generator: torch.Generator) -> Tensor:
    """Rotation matrices [count, 3, 3]: R = I + sin(t) K + (1 - cos(t)) K^2 (Rodrigues).

    K is the cross product with the axis.
    """
    axis = torch.randn(count, 3, generator=generator)
    x, y, z = (axis / axis.norm(dim=1, keepdim=True)).unbind(1)
    angle = (ANGLE * torch.randn(count, generator=generator))[:, None, None]
    zero = torch.zeros(count)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).reshape(count, 3, 3)
    return torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def turned(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Windows [N, 6, L], each turned by one rotation, the same for both sensors, and scaled."""
    turn = rotations(len(inputs), generator)
    sensors = [turn @ inputs[:, :3], turn @ inputs[:, 3:]]
    factor = 1 + SCALE * torch.randn(len(inputs), 1, 1, generator=generator)
    return torch.cat(sensors, dim=1) * factor
