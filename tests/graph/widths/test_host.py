"""The table of this processor is the one with the same instruction sets, or there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import ConfigError
from deploykit.graph.widths.host import (
    Element,
    Runtime,
    host_target,
    instruction_sets,
    processor_flags,
)
from deploykit.graph.widths.table import WidthTable

VNNI = "fpu sse2 avx fma avx2 avx512f avx512bw avx512_vnni"


def cpuinfo(folder: Path, *flags: str, key: str = "flags\t\t") -> Path:
    """A /proc/cpuinfo with one processor for each text."""
    file = folder / "cpuinfo"
    file.write_text("".join(f"processor\t: {i}\n{key}: {text}\n\n" for i, text in enumerate(flags)))
    return file


def test_the_flags_are_those_that_all_processors_have(tmp_path: Path) -> None:
    file = cpuinfo(tmp_path, "fp asimd asimddp", "fp asimd", key="Features\t")
    assert processor_flags(file) == {"fp", "asimd"}


def test_flags_that_choose_no_kernel_do_not_count() -> None:
    flags = frozenset(VNNI.split())
    assert instruction_sets(Element.FLOAT32, flags) == {"avx", "avx2", "avx512f"}
    assert instruction_sets(Element.INT8, flags) == {"avx2", "avx512f", "avx512_vnni"}


@pytest.mark.parametrize("runtime", Runtime)
@pytest.mark.parametrize("element", Element)
def test_a_processor_with_vnni_finds_its_table(
    runtime: Runtime, element: Element, tmp_path: Path
) -> None:
    target = host_target(runtime, element, cpuinfo(tmp_path, VNNI, VNNI))
    table = WidthTable.load(target)
    assert target.startswith(runtime.value)
    assert target.endswith(element.value)
    assert table.isa == instruction_sets(element, frozenset(VNNI.split()))


@pytest.mark.parametrize(
    "flags", [f"{VNNI} amx_int8", "fpu sse2 avx avx2", "fp asimd asimddp i8mm"]
)
def test_another_instruction_set_has_no_table(flags: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no width table of litert in int8 fits.*--align N"):
        host_target(Runtime.LITERT, Element.INT8, cpuinfo(tmp_path, flags))


def test_a_system_without_cpuinfo_is_told_to_name_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read.*--target"):
        host_target(Runtime.ORT, Element.INT8, tmp_path / "none")
