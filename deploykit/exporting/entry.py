"""What enters the pipeline: a checkpoint to be folded and captured, or a float ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, assert_never

from deploykit.errors import DataError, GraphError
from deploykit.exporting.file_inputs import difference, draw
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.exporting.options import CheckpointOptions, OnnxOptions, Source
from deploykit.exporting.restoration import is_rounding
from deploykit.exporting.size import check_size
from deploykit.graph.onnx_source import OnnxSource, read_onnx
from deploykit.runtime import ort
from deploykit.runtime.single_pass import run_once
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network
from deploykit.spec.posterior import FoldReport
from deploykit.spec.progress import Progress
from deploykit.spec.samples import Samples

Forward = Callable[[Float32Array], AnyArray]
"""Outputs [N, ...] for inputs [N, ...]."""

MONTE_CARLO_INPUTS = 512
"""Inputs on which the mean network is compared with draws from the posterior."""


@dataclass(frozen=True)
class Entered:
    """A float graph with nothing removed yet, and how what it was made from computes.

    stage: name of `unpruned` among the accuracies. mean_forward: None where there is none, or where
    batch norm was changed on purpose; mean: the same whatever was done to batch norm.
    """

    network: Network
    record: Mapping[str, Any]
    stage: str
    unpruned: Forward
    mean: Forward | None = None
    mean_forward: Forward | None = None
    fold: FoldReport | None = None


class Entry(Protocol):
    """A file that an export starts from. input_shape: batch first."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's one input."""
        ...

    def enter(self, samples: Samples, labelled: Samples | None, progress: Progress) -> Entered:
        """The float graph of the file."""
        ...


def open_entry(path: Path, options: CheckpointOptions | OnnxOptions, progress: Progress) -> Entry:
    """The entry that the options were made for; an ONNX file is read here, for its input shape."""
    match options:
        case CheckpointOptions():
            return CheckpointEntry(path, options)
        case OnnxOptions():
            with progress.stage("read ONNX file"):
                shape = options.input_shape
                source = read_onnx(path, None if shape is None else {None: shape})
                check_exportable(source)
            return OnnxEntry(source)
        case _:
            assert_never(options)


@dataclass(frozen=True)
class CheckpointEntry:
    """A file of tensors, and the factory of the network that they belong to."""

    path: Path
    options: CheckpointOptions

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As the options give it."""
        return self.options.input_shape

    def enter(self, samples: Samples, labelled: Samples | None, progress: Progress) -> Entered:
        """Load, fold, compare with draws from the posterior, capture."""
        from deploykit.graph.capture import capture
        from deploykit.posterior import forward
        from deploykit.posterior.architecture import load_factory
        from deploykit.posterior.checkpoint import load_checkpoint
        from deploykit.posterior.fold import fold_posterior
        from deploykit.posterior.predictive import compare_monte_carlo

        options = self.options
        with progress.stage("load checkpoint"):
            loaded = load_checkpoint(self.path)
        with progress.stage("fold posterior"):
            factory = load_factory(options.model)
            folded = fold_posterior(
                loaded, factory, samples.inputs[:4], options.pruning, options.batchnorm, samples
            )
        with progress.stage("compare Monte Carlo") as advance:
            compared = (labelled or samples).head(MONTE_CARLO_INPUTS)
            folded = compare_monte_carlo(folded, loaded, compared, progress=advance)
        with progress.stage("capture graph"):
            captured = capture(folded.module, folded.variance, options.input_shape)
        check_size(captured.model, str(self.path))
        mean = None if folded.bayesian is None else partial(forward.run, folded.bayesian)
        return Entered(
            network=captured,
            record={
                "kind": Source.CHECKPOINT.name.lower(), **_file_record(self.path),
                "unwrapped": list(loaded.unwrapped),
            },
            stage="folded",
            unpruned=partial(forward.run, folded.unpruned),
            mean=mean,
            mean_forward=mean if folded.report.batchnorm == "keep" else None,
            fold=folded.report,
        )  # fmt: skip


@dataclass(frozen=True)
class OnnxEntry:
    """A float ONNX file, read."""

    source: OnnxSource

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As the file states it, or as --input-shape does where the file leaves it open."""
        (shape,) = self.source.shapes.values()
        return shape

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
        (port,), names = source.inputs, [target.name for target in source.outputs]

        def unpruned(values: Float32Array) -> AnyArray:
            return joined_outputs(ort.run(static, {port.name: values}), names)

        return Entered(
            network=source.network,
            record={
                "kind": Source.ONNX.name.lower(), **_file_record(*source.files),
                "opset": source.opset,
            },
            stage="original",
            unpruned=unpruned,
        )  # fmt: skip


def check_exportable(source: OnnxSource) -> None:
    """Raise GraphError where the file's inputs or outputs have no form in an integer network."""
    check_size(source.network.model, str(source.path))
    ports = (*source.inputs, *source.outputs)
    if len(source.inputs) != 1:
        raise GraphError(
            f"{source.path} has {len(source.inputs)} inputs; this version exports networks with one"
        )
    for port in ports:
        if port.dtype != "float32":
            raise GraphError(
                f"{source.path}: {port.name!r} is {port.dtype}; only float32 inputs and outputs "
                "can be quantized, so export the network in float32"
            )


def _file_record(path: Path, *beside: Path) -> dict[str, Any]:
    """Name, SHA-256 over all files in order, and their bytes together."""
    digest, size = hashlib.sha256(), 0
    for file in (path, *beside):
        data = file.read_bytes()
        digest.update(data)
        size += len(data)
    return {"name": path.name, "sha256": digest.hexdigest(), "bytes": size}
