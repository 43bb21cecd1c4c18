"""The stage between removal and planning, as the options ask for it, and its record."""

from __future__ import annotations

from typing import Any, assert_never

from deploykit.graph.equalize.equalize import equalize
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.clipping import FULL_BITS
from deploykit.spec.equalization import Equalization, EqualizationReport, EqualizedChain
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.quantized import int_range


def equalized(
    network: Network,
    asked: Equalization,
    bits: WeightBits,
    inputs: GraphInputs,
    evaluate: FloatEvaluator,
) -> tuple[Network, EqualizationReport | None]:
    """The network that planning goes on with; None where nothing was asked for.

    bits: that the layers are going to have, as far as that is decided; else 8. inputs: calibration
    samples.
    """
    match asked:
        case Equalization.NONE:
            return network, None
        case Equalization.CROSS_LAYER:
            return equalize(
                network,
                inputs,
                evaluate,
                lambda layer: int_range(bits.layers.get(layer, bits.default or FULL_BITS))[1],
            )
        case _:
            assert_never(asked)


def equalization_record(report: EqualizationReport | None) -> dict[str, Any] | None:
    """What was scaled and what was pinned, by chain; null where nothing was asked for."""
    if report is None:
        return None
    return {
        "samples": report.samples,
        "chains": [_chain(chain) for chain in report.chains],
    }


def _chain(chain: EqualizedChain) -> dict[str, Any]:
    return {
        "makers": list(chain.makers), "readers": list(chain.readers),
        "channels": chain.channels, "moved": chain.moved,
        "smallest_factor": 2.0**chain.lowest, "largest_factor": 2.0**chain.highest,
        "predicted_noise": chain.noise, "pinned": list(chain.pinned),
    }  # fmt: skip
