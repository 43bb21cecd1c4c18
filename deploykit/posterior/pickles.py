"""Which globals a pickle would import, read from its opcodes without running any of them."""

from __future__ import annotations

import keyword
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

LEGACY_PICKLES = 5
"""torch.save before 1.6 wrote magic number, version, system, content and storage keys in a row."""

HARMLESS = ("_codecs.encode", "collections.OrderedDict", "torch._utils._rebuild_", "torch.storage.")


def refused_globals(path: Path) -> tuple[str, ...]:
    """Globals of the file that a weights-only load does not allow; empty if it cannot be read."""
    if zipfile.is_zipfile(path):
        try:
            return tuple(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
        except Exception:
            return ()
    with path.open("rb") as file:
        found = dict.fromkeys(_imports(file))
    return tuple(name for name in found if _is_name(name) and not _is_harmless(name))


def _is_name(name: str) -> bool:
    """Whether Python could import it; a text file read as opcodes yields other things."""
    parts = name.split(".")
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)


def _is_harmless(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    tensor_type = module == "torch" and (attribute.endswith("Storage") or attribute.islower())
    return tensor_type or name.startswith(HARMLESS)


def _imports(file: IO[bytes]) -> Iterator[str]:
    """Every global named in the pickles at the start of the file, up to where they break off."""
    try:
        for _ in range(LEGACY_PICKLES):
            yield from _imports_of_one(file)
    except Exception:
        return


def _imports_of_one(file: IO[bytes]) -> Iterator[str]:
    """GLOBAL names its target; STACK_GLOBAL takes the last two strings, which may be memoized."""
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None
    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "GLOBAL" | "INST":
                yield str(argument).replace(" ", ".")
                last = None
            case "STACK_GLOBAL":
                yield ".".join(strings[-2:])
                last = None
            case "MEMOIZE":
                memo[len(memo)] = last
            case "PUT" | "BINPUT" | "LONG_BINPUT" if isinstance(argument, int):
                memo[argument] = last
            case "GET" | "BINGET" | "LONG_BINGET" if isinstance(argument, int):
                last = memo.get(argument)
                if last is not None:
                    strings.append(last)
            case _:
                last = argument if isinstance(argument, str) else None
                if last is not None:
                    strings.append(last)
