"""Bits of layers in a file: a bundle's plan.json, or the short form that --save-plan writes.

    {"calibration": "mse", "rounding": "compensated", "weight_range": "least-error",
     "layers": {"conv1": {"weight": {"bits": 4}}, ...}, "in_float": ["fc1"]}

of weights alone with `"activations": "float"` and, where blocks have scales, `"block_size": 32`.
Of a plan.json the same keys are read; its scales and integers are not: they are made anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.errors import ConfigError
from deploykit.exporting.weight_bits import FLOAT
from deploykit.quantize.bits import WEIGHT_BITS, WeightBits
from deploykit.spec.plan import QuantPlan
from deploykit.spec.weight_only import Activations

KEPT = ("activations", "block_size", "calibration", "rounding", "weight_range")
"""Options that a plan states too; flags and export.toml override them."""
OF_BOTH = frozenset({"weight_range"})
"""Of these, what means the same whatever layers compute on."""
FORM = (
    'layers.NAME.weight.bits, as in a bundle\'s plan.json: {"layers": {"conv1": {"weight": ...}}}'
)


@dataclass(frozen=True)
class PlanFile:
    """bits: of every layer with weights. options: values of KEPT that it states.

    in_float: layers that stay in float. listed: those that the file's in_float lists.
    """

    path: Path
    bits: Mapping[str, int]
    options: Mapping[str, str]
    in_float: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()

    def options_for(self, activations: object) -> Mapping[str, str]:
        """What the file states for such activations; None: for its own.

        Rounding and calibration of a plan for others were chosen for those.
        """
        own = self.options.get("activations", Activations.INT8.value)
        asked = activations.value if isinstance(activations, Activations) else activations
        if asked is None or asked == own:
            return self.options
        return {key: value for key, value in self.options.items() if key in OF_BOTH}

    def weight_bits(self, named: WeightBits) -> WeightBits:
        """named: by --layer-bits, which override the file's."""
        over = {*named.layers, *named.in_float}
        planned = {name: bits for name, bits in self.bits.items() if name not in over}
        in_float = self.in_float - over
        stated = {name: self._entry(name) for name in (*planned, *in_float)}
        return WeightBits(
            None, {**planned, **named.layers}, in_float | named.in_float,
            {**named.stated, **stated}, f"--plan {self.path}",
        )  # fmt: skip

    def _entry(self, name: str) -> str:
        held = self.bits.get(name, f'"{FLOAT}"')
        entry = f"layers.{name}.weight.bits = {held}"
        return f"--plan {self.path}: {f'in_float lists {name}' if name in self.listed else entry}"


def read_plan(path: Path) -> PlanFile:
    """Raises ConfigError naming what of the file is none."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; --plan names a plan.json") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--plan {path} is not JSON: {error}") from error
    layers = stated.get("layers") if isinstance(stated, Mapping) else None
    if not isinstance(layers, Mapping):
        raise ConfigError(f"--plan {path} has no `layers`; it holds {FORM}")
    bits: dict[str, int] = {}
    left: list[str] = []
    for name, layer in layers.items():
        if not isinstance(layer, Mapping):
            raise ConfigError(f"--plan {path}: layers.{name} is {layer!r}; it holds {FORM}")
        held = layer.get("weight")
        if isinstance(held, Mapping) and held.get("bits") == FLOAT:
            left.append(str(name))
        elif "weight" in layer:
            bits[str(name)] = _bits(path, str(name), layer["weight"])
    if not bits:
        raise ConfigError(f"--plan {path} names no layer with a weight; it holds {FORM}")
    in_float = stated.get("in_float", [])
    if not isinstance(in_float, list) or not all(isinstance(name, str) for name in in_float):
        raise ConfigError(f"--plan {path}: in_float is {in_float!r}; it lists names of layers")
    both = next((name for name in in_float if name in bits), None)
    if both is not None:
        raise ConfigError(f"--plan {path}: layer {both} has bits and is in in_float; keep one")
    options = {key: str(stated[key]) for key in KEPT if stated.get(key) is not None}
    return PlanFile(path, bits, options, frozenset((*in_float, *left)), frozenset(in_float))


def check_replaceable_plan(path: Path) -> None:
    """Raises ConfigError where something else than a plan would be written over."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        read_plan(path)
    except ConfigError as error:
        raise ConfigError(
            f"--save-plan {path} exists and is no plan; choose another name, or remove it"
        ) from error


def _bits(path: Path, name: str, weight: object) -> int:
    value = weight.get("bits") if isinstance(weight, Mapping) else None
    if isinstance(value, int) and not isinstance(value, bool) and value in WEIGHT_BITS:
        return value
    known = ", ".join(map(str, WEIGHT_BITS))
    raise ConfigError(
        f"--plan {path}: layers.{name}.weight.bits is {value!r}; weights are quantized to {known} "
        f"bits, or stay in {FLOAT}"
    )


def short_form(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a plan.json what `read_plan` reads."""
    return {
        **{key: record[key] for key in KEPT if key in record},
        "layers": {
            name: {"weight": {"bits": layer["weight"]["bits"]}}
            for name, layer in record["layers"].items()
            if "weight" in layer
        },
        **_left(record.get("in_float", ())),
    }


def _left(in_float: Sequence[str]) -> dict[str, Any]:
    return {"in_float": list(in_float)} if in_float else {}


def plan_form(plan: QuantPlan) -> dict[str, Any]:
    """The same of a plan that no bundle holds."""
    weights = {layer.name: layer.weight for layer in plan.layers if layer.weight is not None}
    return {
        "calibration": plan.calibration,
        "rounding": plan.rounding.value,
        "weight_range": plan.weight_range.value,
        "layers": {name: {"weight": {"bits": held.bits}} for name, held in weights.items()},
        **_left(plan.in_float),
    }
