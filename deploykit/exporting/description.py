"""--labels, --mean and --std: read, and held against the network that they describe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploykit.errors import ConfigError, DataError
from deploykit.spec.model_metadata import ModelMetadata
from deploykit.spec.quantized import QuantizedNetwork


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


def check_metadata(metadata: ModelMetadata, network: QuantizedNetwork) -> None:
    """Raise DataError where the network has another number of classes or channels."""
    given = [network.shape(port.tensor) for port in network.outputs]
    classes = [
        (network.indices[port.tensor].limit,) if port.tensor in network.indices else shape[1:]
        for port, shape in zip(network.outputs, given, strict=True)
    ]
    if metadata.labels and any(found != (len(metadata.labels),) for found in classes):
        raise DataError(
            f"--labels: there are {len(metadata.labels)} labels for outputs of the shapes "
            f"{[list(shape) for shape in given]}; give one line for each class"
        )
    if not metadata.mean:
        return
    shapes = {port.name: network.shape(port.tensor) for port in network.inputs}
    images = [
        port.name
        for port in network.inputs
        if port.tensor in network.tensors and (len(shapes) == 1 or len(shapes[port.name]) == 4)
    ]
    if len(images) != 1:
        raise DataError(
            f"--mean and --std: the network has the inputs {', '.join(shapes)}, and "
            f"{len(images)} of them are images, so that it is not clear which is meant; leave the "
            "two out, and tell the app otherwise"
        )
    channels = shapes[images[0]][1]
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
