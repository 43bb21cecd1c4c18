"""A bundle's files as the checks read them: its plan, its formats, its islands' bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deploykit.bundle import MANIFEST, PLAN, Bundle, read_record
from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import BundleError, IntegrityError
from deploykit.spec.operators import Island, Operator, Rearrange, operator_inputs
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.record import first_difference
from deploykit.spec.weight_only import Activations
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat


def read_plan(bundle: Bundle) -> Mapping[str, Any]:
    """The plan; one that can be held against itself can be held against a file."""
    plan = read_record(bundle.file(PLAN))
    if of_weights_alone(plan):
        raise BundleError(
            f"{bundle.path} holds integers of weights alone (--activations float), and this is "
            "about networks of integers; export it with --activations int8"
        )
    try:
        names = {str(tensor): str(name) for tensor, name in plan["names"].items()}
        first_difference(plan["network"], plan["network"])
    except (LookupError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{bundle.file(PLAN)} is not a plan of deploykit ({type(error).__name__}: {error}); "
            "export the bundle again"
        ) from error
    return {**plan, "names": names}


def of_weights_alone(plan: Mapping[str, Any]) -> bool:
    """Whether a plan.json is of weights alone, between float32 activations."""
    return plan.get("activations") == Activations.FLOAT.value


def formats_of(bundle: Bundle) -> list[Format]:
    """Of the integer models that a bundle holds.

    Raises IntegrityError where its manifest states a layout that does not exist.
    """
    layout = tflite_layout(bundle)
    formats: dict[str, Format] = {fmt.file: fmt for fmt in (OnnxFormat(), TfliteFormat(layout))}
    return [formats[name] for name in bundle.models()]


def with_bodies(
    network: QuantizedNetwork, known: Mapping[str, Island | Rearrange]
) -> QuantizedNetwork:
    """The same, with what islands and rearrangements compute, which files state in own operators.

    known: those of the float graph, by what they give. Only where both read the same tensors: the
    float graph says what, the file says of what.
    """

    def whole(operator: Operator) -> Operator:
        found = known.get(operator.output)
        alike = type(found) is type(operator)
        if (
            found is None
            or not alike
            or set(operator_inputs(found)) != set(operator_inputs(operator))
        ):
            return operator
        return found

    return replace(network, operators=tuple(map(whole, network.operators)))


def tflite_layout(bundle: Bundle) -> TfliteLayout:
    """Raises IntegrityError where the manifest states one that does not exist."""
    stated = bundle.manifest.get("tflite_layout")
    try:
        return TfliteLayout(stated)
    except ValueError as error:
        raise IntegrityError(
            f"{bundle.file(MANIFEST)} states the TFLite layout {stated}, which does not exist; "
            "export the bundle again"
        ) from error
