"""How a window's pads are written: TFLite knows VALID, SAME, and a PAD operator before it.

With out = outputs along an axis and reach = (out - 1) * stride + (kernel - 1) * dilation + 1:

    VALID  no pads
    SAME   out = ceil(in / stride), total = max(reach - in, 0), total // 2 of it in front

What lies behind the last window is never read, so the pads at the end are cut to reach - in - front
before they are compared. Source: tensorflow/lite/kernels/padding.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from deploykit.spec.operators import Window


class Padding(Enum):
    """The values of the schema's enum Padding."""

    SAME = 0
    VALID = 1


@dataclass(frozen=True)
class PaddingForm:
    """padding: the operator's own; before: top, left, bottom, right of a PAD, where one is needed.

    When there is a PAD, `padding` is VALID.
    """

    padding: Padding
    before: tuple[int, int, int, int] | None = None


def padding_form(window: Window, source: tuple[int, int], result: tuple[int, int]) -> PaddingForm:
    """The cheapest form for a window over `source` (H, W) that gives `result` (H, W)."""
    front = (window.pads[0], window.pads[1])
    total_same: list[int] = []
    back: list[int] = []
    same = True
    for axis in (0, 1):
        stride = window.strides[axis]
        reach = (result[axis] - 1) * stride
        reach += (window.kernel[axis] - 1) * window.dilations[axis] + 1
        total_same.append(max(reach - source[axis], 0))
        back.append(max(reach - source[axis] - front[axis], 0))
        same = same and result[axis] == -(-source[axis] // stride)
        same = same and front[axis] == total_same[axis] // 2
    if not any(front) and not any(back):
        return PaddingForm(Padding.VALID)
    if same:
        return PaddingForm(Padding.SAME)
    return PaddingForm(Padding.VALID, (front[0], front[1], back[0], back[1]))
