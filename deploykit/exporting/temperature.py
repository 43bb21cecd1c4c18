"""`export --temperature`: fit one, and put it into the last layer of everything written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from deploykit.errors import ConfigError, DataError, QuantizationError
from deploykit.exporting.constant_output import all_alike
from deploykit.exporting.data import load_samples
from deploykit.exporting.entry import Entered, Forward
from deploykit.exporting.shared_samples import in_both
from deploykit.exporting.temperature_options import Target, TemperatureOptions
from deploykit.graph.temperature import divided_logits
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.structure import tails
from deploykit.quantize.temperature import TemperedPlan, tempered_plan
from deploykit.spec.arrays import AnyArray, FloatArray
from deploykit.spec.confidence import Predictive
from deploykit.spec.inputs import GraphInputs, InputSpec, named_inputs, some_samples
from deploykit.spec.network import Network
from deploykit.spec.plan import QuantPlan
from deploykit.spec.progress import Advance
from deploykit.spec.quantized import IoType, Port, QuantizedNetwork, Tail
from deploykit.spec.samples import Samples
from deploykit.spec.temperature import fitted_temperature, one_hot, tempered
from deploykit.verify.confidence import class_scores
from deploykit.verify.formats import Format, port_inputs


@dataclass(frozen=True)
class FittingData:
    """fitted: samples that the temperature comes from. judged: of --eval-data, which it does not.

    judged: indices; all where None. in_calibration: how many labelled samples that it is fitted to
    are calibration's too, which rounding was fitted to.
    """

    fitted: Samples
    judged: AnyArray | None = None
    in_calibration: int = 0


@dataclass(frozen=True)
class Stages:
    """What is written or held against what is written, before or after the temperature."""

    entered: Entered
    masked: Network
    balanced: Network
    lowered: Network
    plan: QuantPlan


@dataclass(frozen=True)
class Temperature:
    """The temperature that a bundle's files hold, and where it comes from.

    fitted_on: a target, or "given". samples: that it was fitted on. channels, moved: see
    quantize.temperature. integers, changed: output integers of these samples (where none, of the
    calibration data) with and without temperature, and how many differ.
    without: the folded network's outputs before it. judged, in_calibration: see FittingData.
    """

    value: float
    fitted_on: str
    samples: int
    channels: int
    moved: int
    integers: int
    changed: int
    without: Forward
    judged: AnyArray | None = None
    in_calibration: int = 0

    def record(
        self, before: Mapping[str, Predictive] | None, after: Mapping[str, Predictive] | None
    ) -> dict[str, Any]:
        """For manifest.json. before, after: by stage, the integer file's last."""
        flat: dict[str, float | None] = {}
        for metric in ("nll", "ece"):
            for when, found in (("before", before), ("after", after)):
                last = None if not found else list(found.values())[-1]
                flat[f"{metric}_{when}"] = None if last is None else getattr(last, metric)
        return {
            "value": self.value, "fitted_on": self.fitted_on, "samples": self.samples,
            "in_calibration": self.in_calibration, **flat,
            "channels": self.channels, "multipliers_moved": self.moved,
            "integers_compared": self.integers, "integers_changed": self.changed,
            "before": None if before is None else {
                stage: asdict(found) for stage, found in before.items()
            },
        }  # fmt: skip


def fitting_data(
    options: TemperatureOptions,
    specs: tuple[InputSpec, ...],
    samples: Samples,
    labelled: Samples | None,
) -> FittingData:
    """What to fit on; never what judges it afterwards.

    samples: of --data, labelled: of --eval-data. A target of labels takes --temperature-data, or
    every second sample of --eval-data from the first on, the others judging it; Monte Carlo, which
    asks for no labels, --temperature-data or --data.

    Raises DataError where labels are missing, or samples are in both.
    """
    if options.data is not None:
        fitted = load_samples(options.data, specs)
        if options.wanted is Target.LABELS and fitted.labels is None:
            raise DataError(
                f"{options.data} holds no `labels`, which --temperature labels fits to; add them, "
                "or fit to --temperature monte-carlo"
            )
        shared = 0 if labelled is None else in_both(fitted.inputs, labelled.inputs)
        if shared:
            raise DataError(
                f"{shared} samples of {options.data} are in --eval-data too, which would judge the "
                "temperature by what it was fitted on; leave them out of one, or leave "
                "--temperature-data out: then --eval-data is halved"
            )
        labels = options.wanted is Target.LABELS
        return FittingData(
            fitted, in_calibration=in_both(fitted.inputs, samples.inputs) if labels else 0
        )
    if options.wanted is not Target.LABELS:
        return FittingData(samples)
    if labelled is None or labelled.labels is None:
        raise DataError("--temperature labels: --eval-data holds no `labels`; add them")
    if len(labelled) < 2:
        raise DataError("--temperature labels: --eval-data holds one sample; give more")
    half = slice(0, None, 2)
    fitted = Samples(some_samples(labelled.inputs, half), labelled.labels[half])
    return FittingData(
        fitted, np.arange(1, len(labelled), 2), in_both(fitted.inputs, samples.inputs)
    )


def scale_by_temperature(
    options: TemperatureOptions,
    data: FittingData,
    stages: Stages,
    fmt: Format,
    progress: Advance,
) -> tuple[Stages, Temperature]:
    """Fit T to the integer network's own logits, and divide them by it in every stage.

    fmt: whose file computes them; all compute the same.

    Raises QuantizationError, GraphError, ConfigError or DataError.
    """
    inputs = data.fitted.inputs
    without = _bare(apply_plan(stages.lowered, stages.plan))
    integers = _integers(without, fmt, inputs)
    (port,) = without.outputs
    if port.tensor not in without.tensors:
        raise ConfigError("--temperature: the network answers in whole numbers; leave it out")
    outputs = class_scores(without.tensors[port.tensor].quantization.dequantize(integers))
    if outputs is None:
        raise ConfigError(
            f"--temperature: the output has shape {list(without.shape(port.tensor))}; a "
            "temperature needs the scores of two or more classes, [N, K]; leave it out"
        )
    if not isinstance(options.wanted, float) and all_alike(outputs):
        raise QuantizationError(
            f"--temperature {options.wanted.value}: the integer network gives the same scores for "
            f"all {len(outputs)} samples, to which no temperature can be fitted; see why without "
            "--temperature: the export says whether the float network does so too"
        )
    if isinstance(options.wanted, float):
        wanted, fitted_on, count = options.wanted, "given", 0
    else:
        targets = _targets(options.wanted, data.fitted, stages.entered, outputs, progress)
        wanted = fitted_temperature(outputs, targets)
        fitted_on, count = options.wanted.value, len(data.fitted)
    planned = tempered_plan(stages.lowered, stages.plan, wanted)
    after = tempered_stages(stages, planned)
    again = _integers(_bare(apply_plan(after.lowered, after.plan)), fmt, inputs)
    return after, Temperature(
        planned.temperature, fitted_on, count, len(planned.divisors), planned.moved, again.size,
        int(np.count_nonzero(again != integers)), stages.entered.unpruned, data.judged,
        data.in_calibration,
    )  # fmt: skip


def _targets(
    target: Target, samples: Samples, entered: Entered, outputs: FloatArray, progress: Advance
) -> FloatArray:
    """[N, K] probabilities."""
    if target is Target.LABELS:
        assert samples.labels is not None
        return one_hot(samples.labels, outputs.shape[1])
    drawn = None if entered.predictive is None else entered.predictive(samples.inputs, progress)
    if drawn is None:
        raise ConfigError(
            "--temperature monte-carlo: no layer of the checkpoint has a posterior to draw from; "
            "fit to --temperature labels"
        )
    return drawn


def tempered_stages(stages: Stages, planned: TemperedPlan) -> Stages:
    """Every stage with its logits divided by the plan's temperature."""
    temperature, tail = planned.temperature, _tail(stages.lowered)
    entered = stages.entered

    def scaled(forward: Forward | None) -> Forward | None:
        if forward is None:
            return None
        return lambda inputs: tempered(forward(inputs), temperature, tail)

    unpruned = scaled(entered.unpruned)
    assert unpruned is not None
    return Stages(
        replace(
            entered,
            unpruned=unpruned,
            mean=scaled(entered.mean),
            mean_forward=scaled(entered.mean_forward),
        ),
        divided_logits(stages.masked, planned.divisors),
        divided_logits(stages.balanced, planned.divisors),
        divided_logits(stages.lowered, planned.divisors),
        planned.plan,
    )


def _tail(lowered: Network) -> Tail | None:
    return next(iter(tails(lowered).values()), None)


def _bare(network: QuantizedNetwork) -> QuantizedNetwork:
    """The same with integer ports and nothing behind them."""
    outputs = tuple(Port(port.name, port.tensor) for port in network.outputs)
    return replace(network, outputs=outputs, io=IoType.INT8)


def _integers(network: QuantizedNetwork, fmt: Format, inputs: GraphInputs) -> AnyArray:
    """The only output's integers, int8."""
    given = port_inputs(network, named_inputs(inputs, [port.name for port in network.inputs]))
    (port,) = network.outputs
    return fmt.run_outputs(fmt.write(network), network, given)[port.name]
