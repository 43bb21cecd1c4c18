"""Read the tensors of a pickle that also asks for classes, without importing any of them.

Every global that torch's weights-only loader does not know is replaced by an empty class of this
module, which keeps what it is given and runs nothing. What holds such objects is left out, as long
as it stands beside the weights and could not be part of them: settings of a training run, in the
hyper_parameters of Lightning or the args of a script.
"""

from __future__ import annotations

import _compat_pickle
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deploykit.posterior.file_formats import is_laplace
from deploykit.spec.listing import listed

HARMLESS = frozenset({
    "argparse.Namespace", "collections.Counter", "collections.defaultdict", "collections.deque",
    "copyreg._reconstructor", "datetime.date", "datetime.datetime", "datetime.timedelta",
    "datetime.timezone", "decimal.Decimal", "fractions.Fraction", "functools.partial",
    "types.SimpleNamespace", "typing.Any", "typing.Dict", "typing.List", "typing.Optional",
    "typing.Tuple", "typing.Union", "uuid.UUID",
    *(
        f"pathlib{part}.{name}"
        for part in ("", "._local")
        for name in (
            "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath",
        )
    ),
    *(
        f"builtins.{name}"
        for name in (
            "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list",
            "object", "range", "set", "slice", "str", "tuple", "type",
        )
    ),
})  # fmt: skip
"""Of Python's own library, what settings are made of; all else of it in a pickle means no good."""
NEEDED = ("torch.distributions.", "pyro.")
"""Without these objects the tensors beside them would be read wrongly: Pyro's constraints."""
LIGHTNING = ("callbacks", "datamodule_hyper_parameters", "hyper_parameters", "loops")
"""Entries of Lightning's files that are no weights, whatever tensors they hold."""
RENAMED = {old: new for old, new in _compat_pickle.IMPORT_MAPPING.items() if old != new}
"""Modules of Python's library by the names that older pickle protocols write."""


class StandIn:
    """What takes the place of an object; held: all that the pickle gives it.

    torch fills no dictionaries and lists but Python's own, so that a file with instances of their
    subclasses is refused.
    """

    name = ""

    def __init__(self, *given: object) -> None:
        self.held: list[object] = list(given)

    def __setstate__(self, state: object) -> None:
        """Keep what a pickle sets as the object's content."""
        self.__dict__.setdefault("held", []).append(state)


@dataclass(frozen=True)
class Kept:
    """content: the file's entries without stand-ins. unread: those left out, and why."""

    content: object
    unread: tuple[str, ...]


def may_stand_in(names: Iterable[str]) -> bool:
    """Whether each of the globals may be left out with what holds it."""
    return all(is_harmless(name) for name in names)


def load_with_stand_ins(path: Path, names: Iterable[str], mmap: bool) -> object:
    """The file's content with a StandIn for every object of these globals.

    Raises whatever torch raises where that is not enough.
    """
    stand_ins: list[Any] = [(type("StandIn", (StandIn,), {"name": name}), name) for name in names]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def without_stand_ins(content: object) -> Kept | None:
    """The entries that can be read; None where a stand-in is in what may be the weights."""
    if not isinstance(content, Mapping):
        return None
    kept: dict[object, object] = {}
    unread: list[str] = []
    for key, value in content.items():
        entry = _readable_fit(value) if is_laplace(value) else value
        names = dict.fromkeys(_names(_parts((key, entry))))
        if not names:
            kept[key] = entry
        elif key in LIGHTNING or _is_optimizer(entry) or not _holds_tensors(entry):
            unread.append(f"{key}, which holds {listed(names)}")
        else:
            return None
    return Kept(kept, tuple(unread)) if _holds_tensors(kept) else None


def is_harmless(name: str) -> bool:
    """Whether a global may be part of settings, and of nothing that reading the weights needs."""
    module, _, attribute = name.rpartition(".")
    module = RENAMED.get(module, module)
    if module.partition(".")[0] in sys.stdlib_module_names:
        return f"{module}.{attribute}" in HARMLESS
    return not name.startswith(NEEDED)


def _readable_fit(fit: Mapping[object, object]) -> dict[object, object]:
    """A Laplace fit without the kind of its likelihood, which is laplace-torch's enumeration."""
    return {key: value for key, value in fit.items() if key != "likelihood"}


def _is_optimizer(entry: object) -> bool:
    """Whether it is an optimizer's state that holds no posterior, as IVON's does."""
    if not isinstance(entry, Mapping) or "param_groups" not in entry:
        return False
    return not any("hess" in part for part in _parts(entry) if isinstance(part, Mapping))


def _holds_tensors(value: object) -> bool:
    return any(isinstance(part, torch.Tensor) for part in _parts(value))


def _names(parts: Iterable[object]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, StandIn) or (isinstance(part, type) and issubclass(part, StandIn)):
            yield part.name


def _parts(value: object) -> Iterator[object]:
    """The value and all that it holds, once each."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        match part:
            case Mapping():
                waiting += [*part.keys(), *part.values()]
            case list() | tuple() | set() | frozenset():
                waiting += part
            case StandIn():
                waiting += vars(part).get("held", [])
