"""Options that the user gave and that a network left nothing to do for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deploykit.quantize.clipping import FULL_BITS
from deploykit.spec.plan import QuantPlan

OF_WEIGHTS = ("rounding", "weight_range", "bias_correction")
KEPT = "every layer's weights came as integers, which are kept"
WIDE = f"no layer whose weights are rounded here has fewer than {FULL_BITS} bits"


def without_effect(stated: Collection[str], plan: QuantPlan) -> list[dict[str, Any]]:
    """For manifest.json. stated: names of options that the user gave."""
    weights = {one.name: one.weight for one in plan.layers if one.weight is not None}
    kept = {use.name for use in plan.given if use.kind == "weight" and not use.why}
    rounded = [held for name, held in weights.items() if name not in kept]
    if weights and not rounded:
        return _told([name for name in OF_WEIGHTS if name in stated], KEPT)
    if all(held.bits >= FULL_BITS for held in rounded):
        return _told([name for name in ("weight_range",) if name in stated], WIDE)
    return []


def _told(names: list[str], why: str) -> list[dict[str, Any]]:
    options = [f"--{name.replace('_', '-')}" for name in names]
    return [{"options": options, "why": why}] if options else []
