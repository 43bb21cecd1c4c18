"""What a checkpoint holds, under the names of the network that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import ConfigError, UsageError
from deploykit.exporting.entry import CheckpointEntry
from deploykit.exporting.file_out import check_writable, write_file
from deploykit.exporting.input_shapes import GivenInputs, parse_inputs, shape_flags
from deploykit.exporting.options import CheckpointOptions
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import CheckpointSummary, inspect_checkpoint
from deploykit.posterior.layer_map import Match, propose, unfitting
from deploykit.posterior.layer_map_file import layer_map_text
from deploykit.posterior.layer_shapes import placed_layers, stored_layers
from deploykit.posterior.network_facts import as_told_by
from deploykit.posterior.suggestion import Given
from deploykit.report.describe import MODEL_ENDINGS, Description, describe


@dataclass(frozen=True)
class InspectOptions:
    """As the options of an export with these names; model None: the file alone."""

    model: str | None = None
    inputs: GivenInputs | None = None
    weights: str | None = None
    layer_map: Path | None = None


def inspect_path(
    path: Path, model: str | None, input_shape: object, weights: str | None, layer_map: object
) -> Description:
    """What is at the path; the options are of checkpoints alone."""
    given = {"model": model, "input-shape": input_shape, "weights": weights, "layer-map": layer_map}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        return describe(path)
    if path.is_dir() or path.suffix in MODEL_ENDINGS:
        raise UsageError(f"--{named[0]} belongs to checkpoints, and {path} is none; leave it out")
    options = InspectOptions(
        model,
        None if input_shape is None else parse_inputs(input_shape),
        weights,
        None if layer_map is None else Path(str(layer_map)),
    )
    return inspect_file(path, options)


def inspect_file(path: Path, options: InspectOptions) -> CheckpointSummary:
    """The checkpoint by layer; with a model, under the network's names and a vector laid out."""
    shape = None if options.inputs is None else shape_flags(options.inputs)
    given = Given(options.model, shape, options.weights, options.layer_map)
    if options.model is None:
        for name in ("inputs", "layer_map"):
            if getattr(options, name) is not None:
                flag = "--input-shape" if name == "inputs" else "--layer-map"
                raise UsageError(f"{flag} is about the network: give --model FILE.py:FACTORY too")
        return inspect_checkpoint(load_checkpoint(path, options.weights), given=given)
    entry = CheckpointOptions(
        options.model, options.inputs or {}, weights=options.weights, layer_map=options.layer_map
    )
    return inspect_checkpoint(CheckpointEntry(path, entry).load().checkpoint, given=given)


def write_layer_map(path: Path, out: Path, options: InspectOptions) -> tuple[Match, ...]:
    """Propose which layer of the network each layer of the checkpoint is, and write it down.

    Raises ConfigError where the shapes are not the network's, or `out` is there already.
    """
    if options.model is None or options.inputs is None:
        raise UsageError(
            "--write-layer-map compares with the network and runs it once: give --model "
            "FILE.py:FACTORY and --input-shape 1,C,H,W"
        )
    check_writable(out, "--write-layer-map", (path,))
    if out.exists():
        raise ConfigError(f"{out} is there already; remove it, or give another name")
    network = load_factory(options.model)()
    checkpoint = as_told_by(network, load_checkpoint(path, options.weights))
    entry = CheckpointEntry(path, CheckpointOptions(options.model, options.inputs))
    matches = propose(checkpoint, network, entry.example())
    if not matches:
        lacking = unfitting(stored_layers(checkpoint), placed_layers(network, {}))
        raise ConfigError(f"{path}: {lacking}; build the network that was trained")
    write_file(out, layer_map_text(matches).encode())
    return matches
