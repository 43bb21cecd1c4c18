"""--input-shape: the sizes of a network's inputs, and which of them hold whole numbers."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploykit.errors import ConfigError
from deploykit.spec.inputs import WHOLE_TYPES, InputSpec

FORM = re.compile(rf"(?:(.+)[=:])?([^=:A-Za-z]*?)(?::({'|'.join(('float32', *WHOLE_TYPES))}))?")
"""NAME=SIZES:TYPE, of which name and type may be missing; `:` may stand for `=`."""


@dataclass(frozen=True)
class GivenInput:
    """sizes: batch first. dtype: None where it was not said."""

    sizes: tuple[int, ...]
    dtype: str | None = None


GivenInputs = Mapping[str | None, GivenInput]
"""By input name; None: the only one."""


def parse_inputs(value: object) -> GivenInputs:
    """From a flag or several, or from what export.toml and Python state.

    "1,3,8,8", [1, 3, 8, 8] -> {None: (1, 3, 8, 8)}; ["a=1,3", "b=1,5:int64"], {"a": [1, 3], "b":
    "1,5:int64"} -> {"a": (1, 3), "b": (1, 5) of int64}

    Raises ConfigError where something is no shape, or is given twice.
    """
    if isinstance(value, Mapping):
        if not value:
            raise ConfigError("--input-shape names no input; give the sizes of each")
        return {str(name): _of_name(str(name), given) for name, given in value.items()}
    if isinstance(value, str):
        texts: Sequence[str] = [value]
    elif isinstance(value, Sequence) and value and all(isinstance(one, str) for one in value):
        texts = value
    else:
        return {None: GivenInput(parse_shape(value))}
    found: dict[str | None, GivenInput] = {}
    for text in texts:
        name, given = _parse(text)
        if name in found:
            raise ConfigError(f"--input-shape gives {name or 'the input'} twice; give it once")
        found[name] = given
    if None in found and len(found) > 1:
        raise ConfigError(
            f"--input-shape {next(text for text in texts if _parse(text)[0] is None)} names no "
            "input; where there are several, give NAME=SIZES for each"
        )
    return found


def parse_shape(value: object) -> tuple[int, ...]:
    """parse_shape("1,3,224,224") -> (1, 3, 224, 224)"""
    sizes = _sizes(value)
    if len(sizes) < 2:
        raise ConfigError(
            f"--input-shape {value} is no shape; give whole numbers with the batch first, "
            "such as 1,3,224,224"
        )
    return sizes


def specs_of(given: GivenInputs, unnamed: str) -> tuple[InputSpec, ...]:
    """One per input, float32 unless it says otherwise. unnamed: what an input without is called."""
    return tuple(
        InputSpec(unnamed if name is None else name, one.sizes, one.dtype or "float32")
        for name, one in given.items()
    )


def shape_flags(given: GivenInputs) -> str:
    """shape_flags({"ids": GivenInput((1, 8), "int64")}) -> "--input-shape ids=1,8:int64"."""
    return " ".join(
        f"--input-shape {'' if name is None else f'{name}='}{','.join(map(str, one.sizes))}"
        f"{'' if one.dtype is None else f':{one.dtype}'}"
        for name, one in given.items()
    )


def check_batches(specs: Sequence[InputSpec]) -> None:
    """Raise ConfigError where inputs differ in their first size, along which samples stand."""
    batches = {spec.name: spec.shape[:1] for spec in specs}
    if len(set(batches.values())) > 1 or () in batches.values():
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
        raise ConfigError(
            f"--input-shape: the inputs begin with different batches ({shapes}); samples stand "
            "along the first axis of every input: give each the same batch, such as 1"
        )


def _of_name(name: str, value: object) -> GivenInput:
    if isinstance(value, str):
        return _parse(f"{name}={value}")[1]
    sizes = _sizes(value)
    if not sizes:
        raise _no_shape(f"{name}={value}")
    return GivenInput(sizes)


def _parse(text: str) -> tuple[str | None, GivenInput]:
    found = FORM.fullmatch(text)
    name, sizes, dtype = (None, "", None) if found is None else found.groups()
    if name is None:
        return None, GivenInput(parse_shape(sizes or text), dtype)
    if not _sizes(sizes):
        raise _no_shape(text)
    return name, GivenInput(_sizes(sizes), dtype)


def _no_shape(text: str) -> ConfigError:
    return ConfigError(
        f"--input-shape {text} is no shape; give whole numbers with the batch first, such as "
        "NAME=1,3,224,224, and :int64 behind those of token ids"
    )


def _sizes(value: object) -> tuple[int, ...]:
    """Empty where a value is no shape."""
    try:
        if isinstance(value, str):
            sizes = tuple(int(part) for part in value.split(","))
        else:
            sizes = tuple(operator.index(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return ()
    return sizes if sizes and min(sizes) >= 1 else ()
