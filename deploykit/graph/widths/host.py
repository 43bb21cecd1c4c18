"""Which measured table fits this processor: the one whose instruction sets are the same.

Kernels are chosen by instruction set, and their tiles with them. A processor that has more than a
table's (AMX beside AVX512-VNNI) runs other kernels, so only an equal set is a match.
"""

from __future__ import annotations

import platform
from enum import Enum
from pathlib import Path

from deploykit.errors import ConfigError
from deploykit.graph.widths.table import MEASURE, WidthTable


class Runtime(Enum):
    """Runtimes that tables are measured on."""

    LITERT = "litert"
    ORT = "ort"


class Element(Enum):
    """Element types that tables are measured for."""

    FLOAT32 = "float32"
    INT8 = "int8"


ARM_INT8 = ("asimd", "asimddp", "i8mm", "sve", "sme")
RELEVANT: dict[Element, frozenset[str]] = {
    Element.FLOAT32: frozenset(("avx", "avx2", "avx512f", "asimd", "sve", "sme")),
    Element.INT8: frozenset(
        ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", *ARM_INT8)
    ),
}
"""Flags, as Linux names them, by which the two runtimes choose a kernel."""

CPUINFO = Path("/proc/cpuinfo")


def processor_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Flags that every processor of this machine has, as Linux lists them.

    Raises ConfigError where they cannot be read, as on other systems.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(
            f"the instruction sets of this processor cannot be read ({error}); name a table with "
            f"--target ({', '.join(WidthTable.names())}), or align widths with --align N"
        ) from error
    found = [
        frozenset(line.partition(":")[2].split())
        for line in lines
        if line.partition(":")[0].strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*found) if found else frozenset()


def instruction_sets(element: Element, flags: frozenset[str]) -> frozenset[str]:
    """Those of the flags that choose the kernels of an element type."""
    return flags & RELEVANT[element]


def host_target(runtime: Runtime, element: Element, cpuinfo: Path = CPUINFO) -> str:
    """The target whose table was measured with exactly this processor's instruction sets.

    Raises ConfigError where there is none, with what to do.
    """
    here = instruction_sets(element, processor_flags(cpuinfo))
    names = [
        name
        for name in WidthTable.names()
        if name.startswith(f"{runtime.value}-") and name.endswith(f"-{element.value}")
    ]
    for name in names:
        if WidthTable.load(name).isa == here:
            return name
    raise ConfigError(
        f"no width table of {runtime.value} in {element.value} fits this processor "
        f"({platform.machine()}: {', '.join(sorted(here)) or 'no known instruction set'}); measure "
        f"one here with `{MEASURE}`, or align widths with --align N"
    )
