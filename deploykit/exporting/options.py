"""Every option of `deploykit export`: defaults, the export.toml file, and what they may be."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import ConfigError, UsageError
from deploykit.exporting.bit_targets import AUTO, OF_AUTO, TARGETS, auto_bits
from deploykit.exporting.description import read_metadata
from deploykit.exporting.input_shapes import GivenInputs, parse_inputs
from deploykit.exporting.plan_file import PlanFile, read_plan
from deploykit.exporting.removing import HOST, removal_options
from deploykit.exporting.temperature_options import Target as TemperatureTarget
from deploykit.exporting.temperature_options import TemperatureOptions, temperature_options
from deploykit.exporting.weight_bits import carrier_options, default_of, merged_bits, weight_bits
from deploykit.exporting.weight_only_options import block_size, check_weight_only
from deploykit.graph.options import RemovalOptions
from deploykit.graph.widths.host import Element, Runtime
from deploykit.graph.widths.table import WidthTable
from deploykit.posterior.options import BatchNormMode, Numerics, PruneRule, PruneSpec
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.calibration import Calibration
from deploykit.quantize.clipping import FULL_BITS
from deploykit.quantize.options import QuantizationOptions
from deploykit.spec.allocation import AutoBits, SensitivityChoice
from deploykit.spec.carriers import TfliteLowbit
from deploykit.spec.equalization import Equalization
from deploykit.spec.model_metadata import ModelMetadata
from deploykit.spec.pairs import Target
from deploykit.spec.plan import BiasCorrection, Rounding, WeightRange
from deploykit.spec.quantized import Batch, IoType
from deploykit.spec.weight_only import Activations

RUNTIMES: Mapping[str, Runtime] = {"onnx": Runtime.ORT, "tflite": Runtime.LITERT}
"""By format, the runtime whose kernels like some widths better."""
FORMATS = tuple(RUNTIMES)

Choice = TypeVar("Choice", bound=Enum)


class Source(Enum):
    """What an export starts from."""

    CHECKPOINT = "a checkpoint"
    ONNX = "an ONNX file"


def source_of(path: Path) -> Source:
    """By the file's name: source_of(Path("net.onnx")) -> Source.ONNX"""
    return Source.ONNX if path.suffix == ".onnx" else Source.CHECKPOINT


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint becomes a float graph. inputs: shapes include the batch, NCHW.

    weights: the entry of the file that holds the network, where it has several.
    layer_map: which layer of the network each of the file's is, where their names differ.
    """

    model: str
    inputs: GivenInputs
    pruning: PruneSpec = field(default_factory=PruneSpec)
    batchnorm: BatchNormMode = BatchNormMode.KEEP
    weights: str | None = None
    numerics: Numerics = Numerics.EXACT
    layer_map: Path | None = None


@dataclass(frozen=True)
class OnnxOptions:
    """How an ONNX file becomes a float graph. inputs: of which the file leaves sizes open."""

    inputs: GivenInputs = field(default_factory=dict)


@dataclass(frozen=True)
class ExportOptions:
    """A complete and checked set of options.

    auto: how bits by layer are allocated; those that the quantization's name stay. activations:
    what layers compute on. block_size: inputs that share a scale, None: all of an output. stated:
    names of the options that the user gave, in a file or by flags.
    """

    entry: CheckpointOptions | OnnxOptions
    data: Path
    eval_data: Path | None = None
    to: tuple[str, ...] = FORMATS
    removal: RemovalOptions = field(default_factory=RemovalOptions)
    equalization: Equalization = Equalization.NONE
    quantization: QuantizationOptions = field(default_factory=QuantizationOptions)
    tflite_layout: TfliteLayout = TfliteLayout.NHWC
    metadata: ModelMetadata = field(default_factory=ModelMetadata)
    temperature: TemperatureOptions | None = None
    auto: AutoBits | None = None
    activations: Activations = Activations.INT8
    block_size: int | None = None
    stated: frozenset[str] = frozenset()

    @property
    def plans_bits(self) -> bool:
        """Whether bits by layer are allocated, or come from a plan."""
        return self.auto is not None or self.quantization.bits.default is None


KEYS = (
    "model", "input_shape", "data", "eval_data", "bits", "to", "prune_rule", "threshold",
    "batchnorm", "exact", "align", "target", "equalization", "calibration", "rounding",
    "weight_range", "bias_correction", "io", "tflite_layout", "labels", "mean", "std", "batch",
    "weights", "numerics", "layer_map", "layer_bits", "min_ort", "tflite_lowbit", "temperature",
    "temperature_data", "plan", "activations", "block_size",
    *OF_AUTO,
)  # fmt: skip
"""Names of all options: keys of export.toml, and flags with dashes for underscores."""

BY_BITS = "auto"
"""Value of `rounding` that leaves the choice to the bits."""

OF_CHECKPOINTS = (
    "model", "weights", "layer_map", "prune_rule", "threshold", "batchnorm", "numerics",
)  # fmt: skip
"""Options that an ONNX file, whose weights are numbers already, leaves nothing to do for."""


def build_options(
    given: Mapping[str, Any], config: Path | None = None, source: Source = Source.CHECKPOINT
) -> ExportOptions:
    """Options from export.toml with `given` (None: not given) on top; unknown ones are refused.

    Raises ConfigError naming the option, its value and what it may be: a UsageError where it is
    missing, or has no such value.
    """
    given = {key: value for key, value in given.items() if value is not None}
    values = _left_of({} if config is None else read_config(config), given)
    bits = merged_bits(values.get("bits"), given.get("bits"))
    plan = _plan(values, given)
    stated = frozenset((*values, *given))
    if plan is not None:
        asked = given.get("activations")
        if asked is None and ("plan" not in given or "activations" not in plan.options):
            asked = values.get("activations")
        planned = plan.options_for(asked)
        values = {**planned, **values} if "plan" not in given else {**values, **planned}
    values.update(given)
    activations = choice(Activations, "activations", values.get("activations", "int8"))
    if activations is Activations.FLOAT:
        check_weight_only(values)
    entry = _checkpoint(values) if source is Source.CHECKPOINT else _onnx(values)
    if "data" not in values:
        raise UsageError("give --data calibration.npz: activation ranges are measured on it")
    to = values.get("to", FORMATS)
    formats = _formats([to] if isinstance(to, str) else to)
    target = _target(values.get("target"), formats)
    default = 8 if bits is None else bits
    auto = auto_bits(
        default_of(default),
        values,
        choice(SensitivityChoice, "sensitivity", values.get("sensitivity", "auto")),
    )
    named = weight_bits(
        default if auto is None else _without_auto(default), values.get("layer_bits")
    )
    weights = named if plan is None else plan.weight_bits(named)
    return ExportOptions(
        entry=entry,
        data=Path(values["data"]),
        eval_data=Path(values["eval_data"]) if values.get("eval_data") else None,
        to=formats,
        removal=_removal(values, formats, target),
        equalization=choice(Equalization, "equalization", values.get("equalization", "none")),
        quantization=QuantizationOptions(
            weights,
            choice(Calibration, "calibration", values.get("calibration", "mse")),
            choice(IoType, "io", values.get("io", "float")),
            target,
            choice(Batch, "batch", values.get("batch", "fixed")),
            _rounding(values, weights, auto, activations),
            carrier_options(
                values.get("min_ort"),
                choice(TfliteLowbit, "tflite-lowbit", values.get("tflite_lowbit", "fast")),
                formats,
            ),
            choice(WeightRange, "weight-range", values.get("weight_range", "least-error")),
            _bias_correction(values),
        ),
        tflite_layout=choice(TfliteLayout, "tflite-layout", values.get("tflite_layout", "nhwc")),
        metadata=read_metadata(values),
        temperature=_temperature(values, source),
        auto=auto,
        activations=activations,
        block_size=block_size(values.get("block_size"), activations),
        stated=stated,
    )


def _temperature(values: Mapping[str, Any], source: Source) -> TemperatureOptions | None:
    found = temperature_options(
        values.get("temperature"), values.get("temperature_data"), values.get("eval_data")
    )
    monte_carlo = found is not None and found.wanted is TemperatureTarget.MONTE_CARLO
    if monte_carlo and source is Source.ONNX:
        raise ConfigError(
            "--temperature monte-carlo draws from a posterior, and an ONNX file has none; fit to "
            "--temperature labels"
        )
    return found


def _rounding(
    values: Mapping[str, Any], bits: WeightBits, auto: AutoBits | None, activations: Activations
) -> Rounding:
    """Unless stated: in sequence where weights are to have fewer than 8 bits, else compensated."""
    stated = values.get("rounding", BY_BITS)
    if stated == BY_BITS:
        least = min((bits.default or FULL_BITS, *bits.layers.values()))
        narrow = auto is not None or least < FULL_BITS
        in_integers = activations is Activations.INT8
        return Rounding.SEQUENTIAL if narrow and in_integers else Rounding.COMPENSATED
    try:
        return Rounding(stated)
    except ValueError as error:
        names = ", ".join((BY_BITS, *(one.value for one in Rounding)))
        raise UsageError(f"--rounding {stated}: choose one of {names}") from error


def _bias_correction(values: Mapping[str, Any]) -> BiasCorrection:
    correction = choice(BiasCorrection, "bias-correction", values.get("bias_correction", "means"))
    if correction is BiasCorrection.NONE and values.get("rounding") == Rounding.LEARNED.value:
        raise UsageError(
            "--bias-correction none: --rounding learned learns biases too; leave one of them out"
        )
    return correction


def _left_of(stated: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What of export.toml stands, where flags ask for bits or widths in another way."""
    gone: set[str] = set()
    if given.get("align", "auto") != "auto" and stated.get("target") in WidthTable.names():
        gone.add("target")
    if "plan" in given:
        gone |= {"bits", *OF_AUTO}
    elif "bits" in given:
        gone |= {"plan", *(() if default_of(given["bits"]) == AUTO else OF_AUTO)}
    if any(key in given for key in TARGETS):
        gone |= set(TARGETS)
    return {key: value for key, value in stated.items() if key not in gone}


def _plan(values: Mapping[str, Any], given: Mapping[str, Any]) -> PlanFile | None:
    path = given.get("plan", values.get("plan"))
    if path is None:
        return None
    if given.get("bits", values.get("bits")) is not None:
        raise UsageError("--plan states the bits of every layer; leave --bits out, or the plan")
    return read_plan(Path(path))


def _without_auto(bits: object) -> object:
    """The table without its default, under which layers that it names stay; 8 stands for none."""
    if isinstance(bits, Mapping):
        return {key: value for key, value in bits.items() if value != AUTO}
    return 8


def _checkpoint(values: Mapping[str, Any]) -> CheckpointOptions:
    for required, flag in (("model", "FILE.py:FACTORY"), ("input_shape", "1,1,28,28")):
        if required not in values:
            raise UsageError(f"give --{required.replace('_', '-')} {flag}, or a --config with it")
    return CheckpointOptions(
        model=str(values["model"]),
        inputs=parse_inputs(values["input_shape"]),
        pruning=PruneSpec(
            choice(PruneRule, "prune-rule", values.get("prune_rule", "family")),
            _threshold(values.get("threshold")),
        ),
        batchnorm=choice(BatchNormMode, "batchnorm", values.get("batchnorm", "keep")),
        weights=None if values.get("weights") is None else str(values["weights"]),
        numerics=choice(Numerics, "numerics", values.get("numerics", "exact")),
        layer_map=Path(values["layer_map"]) if values.get("layer_map") else None,
    )


def _onnx(values: Mapping[str, Any]) -> OnnxOptions:
    for option in OF_CHECKPOINTS:
        if option in values:
            raise ConfigError(
                f"--{option.replace('_', '-')} belongs to checkpoints, and the export starts from "
                "an ONNX file; leave it out"
            )
    shape = values.get("input_shape")
    return OnnxOptions({} if shape is None else parse_inputs(shape))


def read_config(path: Path) -> dict[str, Any]:
    """Values of export.toml; its paths are relative to the file itself."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; --config names a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ConfigError(
            f"{path}: unknown option {', '.join(unknown)}; there are {', '.join(KEYS)}"
        )
    for key in ("data", "eval_data", "labels", "layer_map", "temperature_data", "plan"):
        if key in values:
            values[key] = path.parent / str(values[key])
    model = str(values.get("model", ""))
    if model.partition(":")[0].endswith(".py"):
        values["model"] = str(path.parent / model)
    return values


def choice(kind: type[Choice], option: str, value: object) -> Choice:
    """The member that a value names, or a UsageError that lists them all."""
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError as error:
        names = ", ".join(str(member.value) for member in kind)
        raise UsageError(f"--{option} {value}: choose one of {names}") from error


def _formats(values: object) -> tuple[str, ...]:
    named = values if isinstance(values, Sequence) else [values]
    wanted = tuple(dict.fromkeys(str(value) for value in named))
    unknown = [value for value in wanted if value not in FORMATS]
    if unknown or not wanted:
        given = ", ".join(unknown) or "names no format"
        raise UsageError(f"--to {given}: choose onnx, tflite, or both")
    return wanted


def _target(value: object, formats: tuple[str, ...]) -> Target | None:
    """The processors that --target names; None where it names a width table, or nothing."""
    target = next((member for member in Target if value in (member, member.value)), None)
    if target is not None and "onnx" not in formats:
        raise ConfigError(
            f"--target {target.value} is about kernels of ONNX Runtime, and --to leaves model.onnx "
            "out; LiteRT computes the same integers on every processor: leave --target out"
        )
    if target is None and value not in (None, HOST, *WidthTable.names()):
        processors = " or ".join(member.value for member in Target)
        raise UsageError(
            f"--target {value}: give {processors} (processors whose sums the weights have to fit), "
            f"{HOST}, or a width table: {', '.join(WidthTable.names())}"
        )
    return target


def _removal(
    values: Mapping[str, Any], formats: tuple[str, ...], target: Target | None
) -> RemovalOptions:
    """Options of channel removal; a target of processors names no width table."""
    runtimes = [runtime for fmt, runtime in RUNTIMES.items() if fmt in formats]
    if target is None:
        return removal_options(values, runtimes, Element.INT8)
    given = {key: value for key, value in values.items() if key != "target"}
    if target is Target.ANY or given.get("align") not in (None, "auto"):
        return removal_options(given, runtimes, Element.INT8)
    note = f"widths are as removal left them: no width table was measured on {target.value}"
    return replace(removal_options({**given, "align": "none"}, runtimes, Element.INT8), note=note)


def _threshold(value: object) -> float | Mapping[str, float] | None:
    if value is None:
        return None
    try:
        if isinstance(value, Mapping):
            return {str(layer): float(limit) for layer, limit in value.items()}
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--threshold {value} is no number; give one, or a [threshold] table by layer in "
            "export.toml"
        ) from error
