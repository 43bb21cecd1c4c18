"""The file that says which layer of the network each layer of a checkpoint is.

JSON, {"layer of the checkpoint": "layer of the network"}; a list stands where nothing decided, for
its owner to replace by one of its entries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import ConfigError
from deploykit.posterior.layer_map import Match


@dataclass(frozen=True)
class LayerMap:
    """targets: layers of the network by layers of the checkpoint. origin: the file, for errors."""

    origin: str
    targets: Mapping[str, str]


def read_layer_map(path: Path) -> LayerMap:
    """Raises ConfigError where the file is none, or leaves a layer open."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; --layer-map names a JSON file") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no map of layers: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f'{path} is no map of layers: write {{"layer of the checkpoint": "layer of the '
            'network"}, as `deploykit inspect --write-layer-map` does'
        )
    for layer, target in content.items():
        if isinstance(target, list):
            raise ConfigError(
                f"{path}: '{layer}' is open: replace the list by the one of its layers that it is "
                f"({', '.join(map(str, target))})"
            )
        if not isinstance(target, str):
            raise ConfigError(f"{path}: '{layer}' is mapped to {target!r}, which names no layer")
    return LayerMap(str(path), content)


def layer_map_text(matches: Sequence[Match]) -> str:
    """The content of the file, one layer a line."""
    named = {
        match.layer.name: match.candidates[0] if len(match.candidates) == 1 else match.candidates
        for match in matches
    }
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(to)}" for name, to in named.items())
    return f"{{\n{rows}\n}}\n"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"it maps '{twice[0]}' twice")
    return dict(pairs)
