"""--labels, --mean and --std: read, and held against the network that they describe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from deploykit.errors import ConfigError, DataError
from deploykit.spec.inputs import InputSpec
from deploykit.spec.model_metadata import ModelMetadata
from deploykit.spec.network import Network, static_shape
from deploykit.spec.whole_numbers import WHOLE, answer_of


def read_metadata(values: Mapping[str, Any]) -> ModelMetadata:
    """From the options labels (a file, one per line), mean and std.

    Raises ConfigError naming the option, its value and what it may be.
    """
    mean, std = (_numbers(name, values.get(name)) for name in ("mean", "std"))
    if bool(mean) != bool(std):
        raise ConfigError("--mean and --std belong together: give both, or neither")
    if any(value <= 0 for value in std):
        raise ConfigError(f"--std {values['std']}: what pixels are divided by must be positive")
    labels = () if values.get("labels") is None else _labels(Path(values["labels"]))
    return ModelMetadata(labels, mean, std)


def check_labels(metadata: ModelMetadata, network: Network) -> None:
    """Raise DataError where the network has another number of classes.

    network: with static shapes.
    """
    outputs = network.model.graph.outputs
    if metadata.labels and any(_classes(value) != (len(metadata.labels),) for value in outputs):
        shapes = [list(static_shape(value) or ()) for value in outputs]
        raise DataError(
            f"--labels: there are {len(metadata.labels)} labels for outputs of the shapes "
            f"{shapes}; give one line for each class"
        )


def _classes(value: ir.Value) -> tuple[int, ...] | None:
    """Sizes of one sample's scores; of the scores behind an answer, how many there are."""
    node = answer_of(value) if value.dtype in WHOLE else None
    if node is None:
        shape = static_shape(value)
        return None if shape is None else shape[1:]
    scores = static_shape(node.inputs[0])
    return None if scores is None else (scores[node.attributes.get_int("axis", 0)],)


def check_pixels(metadata: ModelMetadata, inputs: Sequence[InputSpec]) -> None:
    """Raise DataError where --mean and --std have numbers for another number of channels."""
    if not metadata.mean:
        return
    images = [
        spec
        for spec in inputs
        if not spec.whole and len(spec.shape) > 1 and (len(inputs) == 1 or len(spec.shape) == 4)
    ]
    if len(images) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(
            f"--mean and --std: the network has the inputs {names}, and "
            f"{len(images)} of them are images, so that it is not clear which is meant; leave "
            "the two out, and tell the app otherwise"
        )
    channels = images[0].shape[1]
    for name, numbers in (("mean", metadata.mean), ("std", metadata.std)):
        if len(numbers) not in (1, channels):
            raise DataError(
                f"--{name}: there are {len(numbers)} numbers for {channels} channels; give one, or "
                "one for each"
            )


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    try:
        if isinstance(value, str):
            parts: Sequence[object] = value.split(",")
        else:
            parts = value if isinstance(value, Sequence) else [value]
        numbers = tuple(float(part) for part in parts)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ConfigError(
            f"--{name} {value} is no number; give one, or one per channel: 127,127,127"
        )
    return numbers


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--labels {path}: {reason}; give a text file, one label a line"
        ) from error
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        raise ConfigError(f"--labels {path}: holds an empty line; give one label a line")
    return labels
