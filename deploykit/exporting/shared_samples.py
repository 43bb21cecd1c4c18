"""Samples that two sets of data have in common, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from deploykit.spec.inputs import GraphInputs


def in_both(first: GraphInputs, second: GraphInputs) -> int:
    """How many samples of the first are among the second."""
    known = set(_digests(second))
    return sum(one in known for one in _digests(first))


def _digests(inputs: GraphInputs) -> list[bytes]:
    """One per sample, over all inputs."""
    arrays = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    rows = zip(*arrays, strict=True)
    return [hashlib.sha256(b"".join(part.tobytes() for part in row)).digest() for row in rows]
