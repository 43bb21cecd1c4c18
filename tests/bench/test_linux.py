"""Device records from fake /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

from deploykit.bench.linux import (
    fastest_core,
    read_cores,
    read_memory_bytes,
    read_model,
    read_operating_system,
    read_processor,
    read_virtualized,
)
from deploykit.spec.bench import Core


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_core(root: Path, index: int, max_khz: int) -> None:
    folder = f"sys/devices/system/cpu/cpu{index}/cpufreq"
    write(root, f"{folder}/cpuinfo_max_freq", f"{max_khz}\n")
    write(root, f"{folder}/scaling_cur_freq", f"{max_khz // 2}\n")
    write(root, f"{folder}/scaling_governor", "schedutil\n")


def test_phone_with_three_clusters(tmp_path: Path) -> None:
    for index, max_khz in enumerate([1_800_000] * 4 + [2_400_000] * 3 + [2_850_000]):
        write_core(tmp_path, index, max_khz)
    (tmp_path / "sys/devices/system/cpu/cpuidle").mkdir()
    cores = read_cores(tmp_path)
    assert len(cores) == 8
    assert cores[7] == Core(7, 2_850_000, 1_425_000, "schedutil")
    assert fastest_core(cores, frozenset(range(8))) == (
        7,
        "highest cpuinfo_max_freq, 2850000 kHz",
    )


def test_big_cores_may_come_first(tmp_path: Path) -> None:
    for index, max_khz in enumerate([2_000_000, 2_000_000, 1_400_000]):
        write_core(tmp_path, index, max_khz)
    assert fastest_core(read_cores(tmp_path), frozenset({0, 1, 2}))[0] == 1


def test_only_allowed_cores(tmp_path: Path) -> None:
    write_core(tmp_path, 0, 1_000_000)
    write_core(tmp_path, 1, 3_000_000)
    assert fastest_core(read_cores(tmp_path), frozenset({0}))[0] == 0


def test_core_numbers_sort_as_numbers(tmp_path: Path) -> None:
    for index in (10, 2, 0):
        write_core(tmp_path, index, 1_000_000)
    assert [core.index for core in read_cores(tmp_path)] == [0, 2, 10]


def test_without_sysfs(tmp_path: Path) -> None:
    assert read_cores(tmp_path) == ()
    core, reason = fastest_core((), frozenset({0, 3}))
    assert core == 3
    assert "not readable" in reason


def test_without_cpufreq(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/system/cpu/cpu0").mkdir(parents=True)
    assert read_cores(tmp_path) == (Core(0, None, None, None),)


def test_where_nothing_can_be_pinned() -> None:
    assert fastest_core((), None)[0] is None


def test_board(tmp_path: Path) -> None:
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 108.00\nHardware\t: BCM2835\n")
    write(tmp_path, "proc/meminfo", "MemTotal:        8245056 kB\nMemFree: 1 kB\n")
    write(tmp_path, "etc/os-release", 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    assert read_model(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"
    assert read_processor(tmp_path) == "BCM2835"
    assert read_memory_bytes(tmp_path) == 8_442_937_344
    assert read_operating_system(tmp_path) == "Debian GNU/Linux 12 (bookworm)"
    assert read_virtualized(tmp_path) is None


def test_virtual_pc(tmp_path: Path) -> None:
    write(tmp_path, "sys/devices/virtual/dmi/id/product_name", "Standard PC\n")
    write(tmp_path, "proc/cpuinfo", "model name\t: Some CPU\nflags\t\t: fpu hypervisor sse2\n")
    assert read_model(tmp_path) == "Standard PC"
    assert read_processor(tmp_path) == "Some CPU"
    assert read_virtualized(tmp_path) is True


def test_empty_machine(tmp_path: Path) -> None:
    assert read_model(tmp_path) is None
    assert read_processor(tmp_path) is None
    assert read_memory_bytes(tmp_path) is None
    assert read_operating_system(tmp_path) is None
    assert read_virtualized(tmp_path) is None
