"""What /proc and /sys tell about a Linux machine, below a root that tests can fake.

Every reader gives None for what is absent: virtual machines hide cpufreq, containers hide DMI.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from deploykit.spec.bench import Core


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\n\0 \t") or None
    except OSError:
        return None


def _read_int(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.isdecimal() else None


def _field(path: Path, name: str) -> str | None:
    """Value of the first "name : value" line of a /proc file."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name and value.strip():
            return value.strip()
    return None


def read_cores(root: Path) -> tuple[Core, ...]:
    """Every core that sysfs lists, by index, with its cpufreq limits in kHz."""
    folder = root / "sys/devices/system/cpu"
    if not folder.is_dir():
        return ()
    indices = sorted(
        int(match[1])
        for entry in folder.iterdir()
        if (match := re.fullmatch(r"cpu(\d+)", entry.name)) is not None
    )
    return tuple(_core(folder / f"cpu{index}" / "cpufreq", index) for index in indices)


def _core(cpufreq: Path, index: int) -> Core:
    return Core(
        index=index,
        max_frequency_khz=_read_int(cpufreq / "cpuinfo_max_freq"),
        current_frequency_khz=_read_int(cpufreq / "scaling_cur_freq"),
        governor=_read(cpufreq / "scaling_governor"),
    )


def fastest_core(cores: Sequence[Core], allowed: frozenset[int] | None) -> tuple[int | None, str]:
    """The core to pin to, and why: the highest cpuinfo_max_freq, of equals the last.

    The last, because interrupts and the system's own work gather on the first.
    allowed: cores that this process may use; None where it cannot be pinned.
    """
    if allowed is None:
        return None, "this system does not pin processes"
    usable = [core for core in cores if core.index in allowed]
    known = [core for core in usable if core.max_frequency_khz is not None]
    if known:
        best = max(known, key=lambda core: (core.max_frequency_khz or 0, core.index))
        return best.index, f"highest cpuinfo_max_freq, {best.max_frequency_khz} kHz"
    return max(allowed), "the last core allowed; cpuinfo_max_freq is not readable here"


def read_processor(root: Path) -> str | None:
    """Name of the processor from /proc/cpuinfo, in the words of x86 or of ARM."""
    path = root / "proc/cpuinfo"
    return _field(path, "model name") or _field(path, "Hardware")


def read_model(root: Path) -> str | None:
    """Name of the machine: device tree on boards, DMI on PCs."""
    return _read(root / "proc/device-tree/model") or _read(
        root / "sys/devices/virtual/dmi/id/product_name"
    )


def read_operating_system(root: Path) -> str | None:
    """PRETTY_NAME of /etc/os-release."""
    for line in (_read(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return None


def read_memory_bytes(root: Path) -> int | None:
    """MemTotal of /proc/meminfo."""
    text = _field(root / "proc/meminfo", "MemTotal")
    match = None if text is None else re.fullmatch(r"(\d+) kB", text)
    return None if match is None else int(match[1]) * 1024


def read_virtualized(root: Path) -> bool | None:
    """Whether an x86 processor says that a hypervisor runs it; None where it has no such flag."""
    flags = _field(root / "proc/cpuinfo", "flags")
    return None if flags is None else "hypervisor" in flags.split()
