"""One removal on its own: from an ONNX file to a smaller one, with everything known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from deploykit.errors import GraphError, RemovalError
from deploykit.exporting.dropped_outputs import KeptChannels, kept_channels, without_dropped
from deploykit.exporting.file_inputs import FileDifference, RunOnce, difference, draw
from deploykit.exporting.restoration import Restored, is_rounding
from deploykit.graph.onnx_source import OnnxSource
from deploykit.graph.options import RemovalOptions
from deploykit.graph.ports import Shape
from deploykit.spec.negligible import Negligible
from deploykit.spec.removal import RemovalReport

DRAWS = 3
MAX_RELATIVE = 1e-3
"""Largest accepted relative difference between the two files in float32."""


@dataclass(frozen=True)
class PruneOptions:
    """input_shapes: by input name (None: the only one), for sizes that the file leaves open.

    data: an .npz with `inputs`, on which magnitudes are measured that float32 may hide; without it
    only exact zeros and constants go.
    """

    input_shapes: Mapping[str | None, Shape] = field(default_factory=dict)
    removal: RemovalOptions = field(default_factory=RemovalOptions)
    data: Path | None = None


@dataclass(frozen=True)
class PrunedFile:
    """What `deploykit prune` did, by which options.

    hidden: channels whose weights float32 rounding hides; None where they were not looked for.

    measured: the two files against each other in ONNX Runtime, in their own element types; the
    sentence why not, where the runtime does not take the file that came in. kept_outputs: by output
    that lost channels on request, those that are left.
    """

    source: OnnxSource
    out: Path
    options: RemovalOptions
    hidden: Negligible | None
    removal: RemovalReport
    restored: Restored
    measured: FileDifference | str
    kept_outputs: Mapping[str, KeptChannels]
    size_bytes: int


def as_file(source: OnnxSource, model: onnx.ModelProto) -> bytes:
    """The bytes to write: `model` with the name and the metadata of the file that came in."""
    written = onnx.ModelProto()
    written.CopyFrom(model)
    written.graph.name = source.model.graph.name
    written.doc_string, written.domain = source.model.doc_string, source.model.domain
    written.model_version = source.model.model_version
    del written.metadata_props[:]
    written.metadata_props.extend(source.model.metadata_props)
    written.producer_name, written.producer_version = "deploykit", ""
    return bytes(written.SerializeToString(deterministic=True))


def compare_files(
    source: OnnxSource, written: bytes, run: RunOnce
) -> tuple[FileDifference | str, dict[str, KeptChannels]]:
    """The file that came in against the one to write, on drawn inputs; or why it did not run.

    Where an output lost channels, those that are left are compared, and named.

    Raises RemovalError where they differ by more than float32 rounding.
    """
    given = source.model.SerializeToString()
    inputs = [draw(source.inputs, source.shapes, seed) for seed in range(DRAWS)]
    try:
        before = [run(given, one) for one in inputs]
    except GraphError as error:
        return str(error), {}
    after = [run(written, one) for one in inputs]
    kept = kept_channels(before, after)
    left = [without_dropped(outputs, kept) for outputs in before]
    found = difference(list(zip(left, after, strict=True)))
    if not (found.max_relative <= MAX_RELATIVE or is_rounding(found)):
        raise RemovalError(
            f"the pruned file differs from {source.path} by {found.max_relative:.1e} of its "
            "largest output in ONNX Runtime, so nothing was written; please report the model"
        )
    return found, kept
