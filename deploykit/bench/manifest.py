"""What a bundle's manifest says about the work of one inference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.errors import BundleError


@dataclass(frozen=True)
class Work:
    """Of one inference; None where the manifest does not say.

    bytes_moved, float_bytes_moved: read and written by the integer and by the float network.
    overflowing: layers whose weights overflow 16-bit sums (spec.pairs).
    """

    macs: int | None
    bytes_moved: int | None
    float_bytes_moved: int | None = None
    overflowing: tuple[str, ...] = ()


def read_work(bundle: Path) -> Work:
    """Sums over manifest.json's layers of macs, bytes, float_bytes; None where one lacks it.

    A manifest that says nothing of pairs has no overflowing layers.
    """
    path = bundle / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Work(None, None)
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); export the bundle again") from error
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    pairs = manifest.get("int16_pairs") if isinstance(manifest, dict) else None
    overflowing = pairs.get("overflowing", ()) if isinstance(pairs, dict) else ()
    return Work(
        _total(layers, "macs"),
        _total(layers, "bytes"),
        _total(layers, "float_bytes"),
        tuple(map(str, overflowing)),
    )


def _total(layers: Any, key: str) -> int | None:
    if not isinstance(layers, list) or not layers:
        return None
    values = [layer.get(key) if isinstance(layer, dict) else None for layer in layers]
    known = [value for value in values if isinstance(value, int)]
    return sum(known) if len(known) == len(values) else None
