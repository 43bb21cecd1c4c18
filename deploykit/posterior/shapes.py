"""The shapes that a layer's other tensors have to have beside its weight."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.errors import CheckpointError
from deploykit.spec.arrays import Tensors

Shape = tuple[int, ...]


def require_shapes(
    layer: str, tensors: Tensors, weight: str, allowed: Mapping[str, set[Shape]]
) -> None:
    """Raise CheckpointError naming the first tensor that has none of the shapes allowed for it.

    weight: the tensor whose shape asks for them. A tensor that the layer lacks is not looked at.
    """
    for key, shapes in allowed.items():
        if key in tensors and tensors[key].shape not in shapes:
            raise CheckpointError(
                f"layer '{layer}': {key} has shape {tensors[key].shape} where {weight} of shape "
                f"{tensors[weight].shape} asks for {max(shapes)}; the checkpoint mixes two layers"
            )
