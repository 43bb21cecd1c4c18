"""What islands and rearrangements compute, where it is known."""

from __future__ import annotations

from deploykit.errors import GraphError
from deploykit.spec.network import Network
from deploykit.spec.operators import Island, Rearrange


def known_body(operator: Island | Rearrange) -> Network:
    """The operator's float graph; a GraphError where it was read from a file that does not say."""
    if operator.body is None:
        raise GraphError(
            f"{operator.name}: the network was read from a file that does not say what this "
            f"{type(operator).__name__} computes; take its float graph from the bundle."
        )
    return operator.body
