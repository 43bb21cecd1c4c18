"""What enters the pipeline: a checkpoint to be folded and captured, or an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never

import numpy as np

from deploykit.errors import ConfigError, DataError, GraphError, UsageError
from deploykit.exporting.file_inputs import difference, draw
from deploykit.exporting.grids import check_grids
from deploykit.exporting.input_shapes import GivenInputs, check_batches, shape_flags, specs_of
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.exporting.options import CheckpointOptions, OnnxOptions, Source
from deploykit.exporting.restoration import is_rounding
from deploykit.exporting.size import check_size
from deploykit.graph.onnx_admission import check_float_or_quantized
from deploykit.graph.onnx_source import OnnxSource, read_onnx
from deploykit.graph.ports import fix_shapes
from deploykit.posterior.options import PruneRule
from deploykit.runtime import ort
from deploykit.runtime.single_pass import run_once
from deploykit.spec.arrays import AnyArray, FloatArray, Tensors
from deploykit.spec.inputs import (
    ONLY,
    WHOLE_TYPES,
    GraphInputs,
    InputSpec,
    count_samples,
    named_inputs,
    some_samples,
)
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network
from deploykit.spec.posterior import Checkpoint, Folded, FoldReport
from deploykit.spec.progress import Advance, Progress
from deploykit.spec.samples import Samples

if TYPE_CHECKING:
    from deploykit.posterior.fold import MeanFold
    from deploykit.posterior.scores import ScoredLayer

Forward = Callable[[GraphInputs], AnyArray]
"""Outputs [N, ...] for inputs [N, ...], several outputs joined (spec.joined)."""

Predicting = Callable[[GraphInputs, Advance], FloatArray | None]
"""Class probabilities [N, K] of the Monte-Carlo predictive for inputs [N, ...].

None where nothing has a posterior to draw from.
"""

Together = Callable[[GraphInputs], Tensors | None]
"""Outputs by name of all samples in one call; None where the source does not run on so many."""

FOLDED_INPUTS = 4
"""Inputs on which the folded network is compared with the Bayesian mean forward."""
MONTE_CARLO_INPUTS = 512
"""Inputs on which the mean network is compared with draws from the posterior."""


@dataclass(frozen=True)
class Entered:
    """A float graph with nothing removed yet, and how what it was made from computes.

    stage: name of `unpruned` among the accuracies. together: the source as it is. mean_forward:
    None where there is none, or where batch norm was changed on purpose; mean: the same whatever
    was done to batch norm. predictive: None where the source has no posterior.
    """

    network: Network
    record: Mapping[str, Any]
    stage: str
    unpruned: Forward
    together: Together
    mean: Forward | None = None
    mean_forward: Forward | None = None
    fold: FoldReport | None = None
    predictive: Predicting | None = None


class Entry(Protocol):
    """A file that an export starts from."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What the network takes."""
        ...

    def enter(self, samples: Samples, labelled: Samples | None, progress: Progress) -> Entered:
        """The float graph of the file."""
        ...


def open_entry(path: Path, options: CheckpointOptions | OnnxOptions, progress: Progress) -> Entry:
    """The entry that the options were made for; an ONNX file is read here, for its input shape."""
    match options:
        case CheckpointOptions():
            entry: Entry = CheckpointEntry(path, options)
        case OnnxOptions():
            with progress.stage("read ONNX file"):
                shapes = {name: given.sizes for name, given in options.inputs.items()}
                source = read_onnx(path, shapes, check_float_or_quantized)
                check_exportable(source, options.inputs)
            entry = OnnxEntry(source)
        case _:
            assert_never(options)
    check_batches(entry.inputs)
    return entry


@dataclass(frozen=True)
class CheckpointEntry:
    """A file of tensors, and the factory of the network that they belong to."""

    path: Path
    options: CheckpointOptions

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """As the options give them."""
        return specs_of(self.options.inputs, ONLY)

    def enter(self, samples: Samples, labelled: Samples | None, progress: Progress) -> Entered:
        """Load, fold, compare with draws from the posterior, capture."""
        from deploykit.graph.capture import capture
        from deploykit.posterior import forward
        from deploykit.posterior.families import families_in
        from deploykit.posterior.predictive import compare_monte_carlo, predictive_of

        options = self.options
        families = families_in(options.numerics)
        with progress.stage("load checkpoint"):
            loaded = self.load()
        with progress.stage("fold posterior"):
            folded = loaded.fold(samples).pruned(options.pruning)
            called = self.by_argument(samples.inputs)
            size = forward.at_a_time(folded.unpruned, called, self.inputs[0].shape[0])
        with progress.stage("compare Monte Carlo") as advance:
            compared = (labelled or samples).head(MONTE_CARLO_INPUTS)
            compared = Samples(self.by_argument(compared.inputs), compared.labels)
            folded = compare_monte_carlo(
                folded, loaded.checkpoint, compared, progress=advance, families=families
            )
        with progress.stage("capture graph"):
            captured = capture(folded.module, folded.variance, self.example(), folded.given)
        check_size(captured.model, str(self.path))

        def computing(module: Any) -> Forward:
            return lambda inputs: forward.run(module, self.by_argument(inputs), size)

        def together(inputs: GraphInputs) -> Tensors | None:
            given = forward.tensors(self.by_argument(inputs))
            found = forward.run_batch(folded.unpruned, given)
            return {name: value.numpy() for name, value in found.items()}

        def predictive(inputs: GraphInputs, advance: Advance) -> FloatArray | None:
            drawn = predictive_of(folded, loaded.checkpoint, families)
            return None if drawn is None else drawn(self.by_argument(inputs), advance)

        mean = None if folded.bayesian is None else computing(folded.bayesian)
        return Entered(
            network=captured,
            record={
                "kind": Source.CHECKPOINT.name.lower(), **_file_record(self.path),
                "unwrapped": list(loaded.checkpoint.unwrapped),
                "beside": list(loaded.checkpoint.beside),
                "unread": list(loaded.checkpoint.unread),
                "layer_map": dict(loaded.checkpoint.layer_map),
            },
            stage="folded",
            unpruned=computing(folded.unpruned),
            together=together,
            mean=mean,
            mean_forward=mean if folded.report.batchnorm == "keep" else None,
            fold=folded.report,
            predictive=predictive,
        )  # fmt: skip

    def load(self) -> Loaded:
        """The tensors under the network's own names, and the factory."""
        from deploykit.posterior.architecture import load_factory
        from deploykit.posterior.checkpoint import load_checkpoint
        from deploykit.posterior.flat import laid_out
        from deploykit.posterior.layer_map_file import read_layer_map
        from deploykit.posterior.naming import mapped, names_fit, other_names
        from deploykit.posterior.network_facts import as_told_by
        from deploykit.posterior.prefixes import fit_prefix

        options = self.options
        checkpoint = load_checkpoint(self.path, options.weights)
        factory = load_factory(options.model)
        network = factory()
        checkpoint = as_told_by(network, checkpoint)
        if options.layer_map is not None:
            renamed = mapped(checkpoint, network, read_layer_map(options.layer_map))
            checkpoint = as_told_by(network, renamed)
        else:
            checkpoint = as_told_by(network, fit_prefix(checkpoint, network))
            if not names_fit(checkpoint, network):
                if not options.inputs:
                    raise UsageError(
                        f"{self.path}: its layers have other names than the network's; give "
                        "--input-shape 1,C,H,W, with which the network is run to match them up"
                    )
                flags = f"--model {options.model} {shape_flags(options.inputs)}"
                flags += "" if options.weights is None else f" --weights {options.weights}"
                refusal = other_names(checkpoint, network, self.example(), flags)
                if refusal is not None:
                    raise refusal
        return Loaded(self, laid_out(checkpoint, network), factory)

    def example(self) -> GraphInputs:
        """Zeros in the shapes of the inputs."""
        zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
        return self.by_argument(zeros[ONLY] if None in self.options.inputs else zeros)

    def by_argument(self, inputs: GraphInputs) -> GraphInputs:
        """The array of an only input by the name that --input-shape gives it, if it gives one."""
        if None in self.options.inputs or isinstance(inputs, Mapping):
            return inputs
        return {spec.name: inputs for spec in self.inputs}


@dataclass(frozen=True)
class Loaded:
    """A checkpoint whose names fit the network that `factory` builds."""

    entry: CheckpointEntry
    checkpoint: Checkpoint
    factory: Any

    def fold(self, samples: Samples) -> MeanFold:
        """The posterior mean, to be pruned; batch norm then as the entry's options ask."""
        from deploykit.posterior.families import families_in
        from deploykit.posterior.fold import mean_fold

        called = Samples(self.entry.by_argument(samples.inputs), samples.labels)
        few = some_samples(called.inputs, slice(FOLDED_INPUTS))
        options = self.entry.options
        families = families_in(options.numerics)
        return mean_fold(self.checkpoint, self.factory, few, options.batchnorm, called, families)

    def scored(self, rule: PruneRule, folded: Folded) -> tuple[ScoredLayer, ...]:
        """What the rule looks at, layer by layer. Raises ConfigError where that is nothing."""
        from deploykit.posterior.families import families_in
        from deploykit.posterior.recognise import recognise
        from deploykit.posterior.scores import score_layers
        from deploykit.posterior.trace import output_layer

        families = families_in(self.entry.options.numerics)
        layers = [layer.posterior() for layer in recognise(self.checkpoint, families).layers]
        scored = score_layers(rule, layers, output_layer(folded.unpruned, self.entry.example()))
        if not scored:
            raise ConfigError(f"--prune-rule {rule.value} has no layer to rank")
        return scored


@dataclass(frozen=True)
class OnnxEntry:
    """An ONNX file, read."""

    source: OnnxSource

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """As the file states them, sizes as --input-shape does where the file leaves them open."""
        return self.source.specs

    def enter(self, samples: Samples, labelled: Samples | None, progress: Progress) -> Entered:
        """Check that reading changed nothing, on one drawn input."""
        del samples
        source = self.source
        if labelled is not None and labelled.labels is not None and len(source.outputs) > 1:
            raise DataError(
                f"{source.path} has {len(source.outputs)} outputs, so its answers cannot be held "
                "against `labels`: leave them out of --eval-data"
            )
        with progress.stage("compare with the file"):
            if source.network.given:
                check_grids(source)
            else:
                _check_read(source)
        # Of a quantized file, what it computes itself; of any other, the same in one spelling.
        fixed = fix_shapes(source.modern, source.shapes).SerializeToString()
        static = fixed if source.network.given else model_bytes(source.network)
        names = [target.name for target in source.outputs]
        ports = [port.name for port in source.inputs]

        def unpruned(values: GraphInputs) -> AnyArray:
            outputs = ort.run(static, named_inputs(values, ports))
            return joined_outputs(outputs, names, count_samples(values))

        def together(values: GraphInputs) -> Tensors | None:
            if any(0 not in port.open_axes() for port in source.inputs):
                return None
            try:
                return run_once(source.model.SerializeToString(), named_inputs(values, ports))
            except GraphError:
                return None  # sizes inside are those of one sample, though the file's is open

        return Entered(
            network=source.network,
            record={
                "kind": Source.ONNX.name.lower(), **_file_record(*source.files),
                "opset": source.opset,
            },
            stage="original",
            unpruned=unpruned,
            together=together,
        )  # fmt: skip


def _check_read(source: OnnxSource) -> None:
    """Raise GraphError where a float file computes something else in the spelling it is read in."""
    inputs = draw(source.inputs, source.shapes)
    static = model_bytes(source.network)
    apart = difference(
        [(run_once(source.model.SerializeToString(), inputs), run_once(static, inputs))]
    )
    if not is_rounding(apart):
        raise GraphError(
            f"{source.path} changed by {apart.max_relative:.1e} of its largest output when "
            f"it was brought from opset {source.opset} to one that deploykit reads; export "
            "it with a newer opset, and please report the model"
        )


def check_exportable(source: OnnxSource, given: GivenInputs) -> None:
    """Raise where the file's inputs or outputs have no form in an integer network.

    given: as --input-shape states the inputs.
    """
    check_size(source.network.model, str(source.path))
    for port in (*source.inputs, *source.outputs):
        if port.dtype not in ("float32", *WHOLE_TYPES):
            raise GraphError(
                f"{source.path}: {port.name!r} is {port.dtype}; only float32 inputs and outputs "
                "can be quantized, so export the network in float32"
            )
    for port in source.inputs:
        stated = given.get(port.name, given.get(None))
        if stated is not None and stated.dtype not in (None, port.dtype):
            raise ConfigError(
                f"--input-shape says that {port.name} is {stated.dtype}, and in {source.path} it "
                f"is {port.dtype}; leave the type out"
            )


def _file_record(path: Path, *beside: Path) -> dict[str, Any]:
    """Name, SHA-256 over all files in order, and their bytes together."""
    digest, size = hashlib.sha256(), 0
    for file in (path, *beside):
        data = file.read_bytes()
        digest.update(data)
        size += len(data)
    return {"name": path.name, "sha256": digest.hexdigest(), "bytes": size}
