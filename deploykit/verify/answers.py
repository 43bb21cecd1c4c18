"""What manifest.json says of accuracy and confidence, measured again on the data that it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploykit.bundle import FLOAT_MODEL, MANIFEST, Bundle
from deploykit.errors import DataError
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.confidence import Predictive
from deploykit.spec.inputs import named_inputs
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network, input_names
from deploykit.spec.parity import Step, Verdict
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.samples import Samples
from deploykit.verify.confidence import confidence_by_stage
from deploykit.verify.formats import Format, port_inputs, real_output
from deploykit.verify.integers import allowed_steps
from deploykit.verify.metrics import accuracy

COMPARED = f"{MANIFEST} / labelled data"
STAGE_OF_FLOATS = "pruned"
LAST = ("nll", "ece")
"""Metrics of the last file that the temperature's record repeats."""
EXACT, OTHER_SUMS, OTHER_STEPS = 1e-9, 0.001, 0.01
"""How far a share of answers, or a metric, may be from what another processor gave: of integers
alone, of float32 sums, and of kernels that round to other integers or rows now and then."""


@dataclass(frozen=True)
class Answered:
    """Outputs of a stage in real values [N, ...], and how far figures may be apart."""

    values: AnyArray
    apart: float


def unchecked(manifest: Mapping[str, Any]) -> Iterator[Step]:
    """What needs the data; nothing where the manifest states no accuracy."""
    stated = manifest.get("accuracy")
    if stated is not None:
        named = [key for key in ("accuracy", "confidence") if manifest.get(key) is not None]
        detail = (
            f"{' and '.join(named)} on labelled samples that no bundle holds: to check them, give "
            "the export's --eval-data"
        )
        yield Step(4, COMPARED, Verdict.UNCHECKED, detail)


def check_labelled(manifest: Mapping[str, Any], labelled: Samples) -> None:
    """Raise DataError where there is nothing to compare, or nothing to compare it with."""
    if labelled.labels is None:
        raise DataError("--eval-data holds no `labels` [N]; give what the export was given")
    if manifest.get("accuracy") is None:
        raise DataError(
            "--eval-data: the bundle states no accuracy, as it was exported without labels; leave "
            "it out"
        )


def answers_step(
    manifest: Mapping[str, Any], labelled: Samples, outputs: Mapping[str, Answered]
) -> Step:
    """labelled: as check_labelled wants them. outputs: by stage."""
    stated, labels = manifest["accuracy"], labelled.labels
    assert labels is not None
    if not outputs:
        reason = "no runtime can be imported here; install one and verify again"
        return Step(4, COMPARED, Verdict.SKIPPED, reason)
    if stated.get("samples") != len(labels):
        return _failed("accuracy.samples", stated.get("samples"), len(labels))
    told = []
    for stage, answered in outputs.items():
        found = accuracy(answered.values, labels)
        if not _near(stated.get(stage), found, answered.apart):
            return _failed(f"accuracy.{stage}", stated.get(stage), found)
        told.append(f"{stage} {found:.4f}")
    failure = _confidence(manifest, labels, outputs)
    if failure is not None:
        return failure
    detail = f"accuracy on {len(labels):,} samples: {', '.join(told)}"
    left = [stage for stage in stated if stage not in {"samples", *outputs}]
    detail += f"; unchecked: {', '.join(left)}" if left else ""
    return Step(4, COMPARED, Verdict.PASSED, detail)


def _confidence(
    manifest: Mapping[str, Any], labels: AnyArray, outputs: Mapping[str, Answered]
) -> Step | None:
    """The first metric that is stated otherwise, with the temperature or without it."""
    stated, temperature = manifest.get("confidence"), manifest.get("temperature")
    if stated is None:
        return None
    judged = _judged(stated.get("samples"), len(labels))
    if judged is None:
        return _failed("confidence.samples", stated.get("samples"), len(labels))
    own = labels[judged]
    some = {stage: answered.values[judged] for stage, answered in outputs.items()}
    compared = [("confidence.stages", stated["stages"], confidence_by_stage(some, own))]
    if temperature is not None:
        before = confidence_by_stage(some, own, temperature["value"])
        compared.append(("temperature.before", temperature["before"], before))
    for where, stages, measured in compared:
        for stage, found in measured.items():
            for metric, value in asdict(found).items():
                said = stages.get(stage, {}).get(metric)
                if not _near(said, value, outputs[stage].apart):
                    return _failed(f"{where}.{stage}.{metric}", said, value)
    return None if temperature is None else _repeated(temperature, compared, outputs)


def _repeated(
    temperature: Mapping[str, Any],
    compared: Sequence[tuple[str, Any, Mapping[str, Predictive]]],
    outputs: Mapping[str, Answered],
) -> Step | None:
    """Of the last file, what the temperature's record says once more."""
    for when, (_, _, measured) in zip(("after", "before"), compared, strict=True):
        last = list(measured)[-1]
        for metric in LAST:
            said, value = temperature.get(f"{metric}_{when}"), getattr(measured[last], metric)
            if not _near(said, value, outputs[last].apart):
                return _failed(f"temperature.{metric}_{when}", said, value)
    return None


def outputs_of_files(
    bundle: Bundle,
    floats: Network | Step,
    networks: Mapping[Format, QuantizedNetwork],
    labelled: Samples,
) -> dict[str, Answered]:
    """By stage, of every file whose runtime is here."""
    outputs: dict[str, Answered] = {}
    if not isinstance(floats, Step) and ort.version() is not None:
        given = named_inputs(labelled.inputs, input_names(floats))
        found: Tensors = ort.run(bundle.file(FLOAT_MODEL).read_bytes(), given)
        values = joined_outputs(found, tuple(found), len(labelled))
        outputs[STAGE_OF_FLOATS] = Answered(values, OTHER_SUMS)
    for fmt, network in networks.items():
        if fmt.version() is None:
            continue
        data = bundle.file(fmt.file).read_bytes()
        raw = fmt.run_outputs(data, network, port_inputs(network, labelled.inputs))
        (port,) = network.outputs
        steps = any(allowed_steps(operator, fmt.key) for operator in network.operators)
        apart = OTHER_STEPS if steps else EXACT
        outputs[fmt.file] = Answered(real_output(network, port, raw), apart)
    return outputs


def _judged(stated: object, count: int) -> slice | None:
    """Of `count` labels those that judge confidence: all, or every second, see --temperature."""
    if stated == count:
        return slice(None)
    return slice(1, None, 2) if stated == count // 2 else None


def _near(stated: object, found: float, tolerance: float) -> bool:
    return isinstance(stated, int | float) and abs(stated - found) <= tolerance


def _failed(field: str, stated: object, found: float) -> Step:
    detail = f"{field}: {MANIFEST} says {stated}, and the data give {found:.6g}"
    return Step(4, COMPARED, Verdict.FAILED, detail)
