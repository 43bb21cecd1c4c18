"""Whether a plan's weights fit the 16-bit sums of x86 processors without VNNI: see spec.pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploykit.errors import ConfigError, IntegrityError
from deploykit.graph.widths.host import processor_flags
from deploykit.runtime.ort import Sums
from deploykit.spec.pairs import LARGEST_PAIR, Target, adds_in_16_bits, largest_pairs
from deploykit.spec.parity import Step, Verdict
from deploykit.spec.quantized import QuantizedNetwork


def overflowing_layers(network: QuantizedNetwork) -> tuple[str, ...]:
    """Convolutions and linears, by name, of which a pair of weights can overflow."""
    names = {operator.output: operator.name for operator in network.operators}
    return tuple(names[tensor] for tensor, pair in largest_pairs(network) if pair > LARGEST_PAIR)


def sums_for(network: QuantizedNetwork) -> Sums:
    """Which sums of ONNX Runtime compute here what its files mean: 32-bit ones, everywhere.

    Exact where this processor's kernels would saturate, so that a file for a phone is proved on any
    machine; the kernels' own where all weights fit, which is what a target promises.
    """
    return Sums.EXACT if saturates_here(network) else Sums.KERNELS


def saturates_here(network: QuantizedNetwork) -> bool:
    """Whether ONNX Runtime's default kernels can give other integers on this processor."""
    return kernels_add_in_16_bits() and bool(overflowing_layers(network))


def kernels_add_in_16_bits() -> bool:
    """Of ONNX Runtime, on this processor; False where its flags cannot be read: not known."""
    flags = _flags()
    return flags is not None and adds_in_16_bits(flags)


def _flags() -> frozenset[str] | None:
    """This processor's; None where they cannot be read."""
    try:
        return processor_flags()
    except ConfigError:
        return None


def planned_target(plan: Mapping[str, Any]) -> Target | None:
    """The processors that plan.json says its weights fit.

    Raises IntegrityError where it states something else.
    """
    stated = plan.get("target")
    try:
        return None if stated is None else Target(stated)
    except ValueError as error:
        raise IntegrityError(
            f"plan.json states the target {stated!r}, which does not exist; export it again"
        ) from error


def sums_step(compared: str, network: QuantizedNetwork) -> Step:
    """Whether no two weights that kernels without VNNI pair can overflow, whatever the inputs."""
    layers = overflowing_layers(network)
    if layers:
        detail = f"operator {layers[0]}: a pair of weights exceeds {LARGEST_PAIR}"
        return Step(4, compared, Verdict.FAILED, detail, layers[0])
    largest = max((pair for _, pair in largest_pairs(network)), default=0)
    detail = f"the largest pair of weights is {largest}, at most {LARGEST_PAIR} fit"
    return Step(4, compared, Verdict.PASSED, detail)


def why_onnxruntime_differs(network: QuantizedNetwork) -> str:
    """A clause that says why and what to do, where this processor may be the reason; else empty.

    network: whose integers onnxruntime did not give here.
    """
    layers = overflowing_layers(network)
    if not layers or _flags() is not None:
        return ""
    return (
        "on an x86 processor without VNNI, which this one may be, onnxruntime adds products in "
        f"pairs of 16 bits, which weights of {', '.join(layers)} overflow: export with "
        "--target x86-avx2 (or any)"
    )


def how_it_was_summed(network: QuantizedNetwork) -> str:
    """A clause that says where 32-bit sums stand for this processor's own; else empty."""
    if not saturates_here(network):
        return ""
    return (
        "in 32-bit sums, as phones add; onnxruntime's own on this processor, AVX2 without VNNI, "
        f"overflow in {', '.join(overflowing_layers(network))}: to run the file here, export with "
        "--target x86-avx2 (or any)"
    )
