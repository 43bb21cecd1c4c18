"""This machine as a device."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deploykit.bench.devices import open_device
from deploykit.bench.host import open_host
from deploykit.errors import ConfigError, DeviceError
from deploykit.graph.widths.host import processor_flags
from deploykit.spec.pairs import adds_in_16_bits


def test_push_run_pull(tmp_path: Path) -> None:
    source = tmp_path / "with space; and $(more)"
    source.write_text("hello", encoding="utf-8")
    with open_host() as host:
        remote = host.push(source)
        program = "import sys; print(open(sys.argv[1]).read()); sys.exit(7)"
        done = host.run([host.python, "-c", program, remote], timeout_s=60)
        host.pull(remote, tmp_path / "back")
    assert (done.exit_code, done.stdout) == (7, "hello\n")
    assert (tmp_path / "back").read_text(encoding="utf-8") == "hello"
    assert not Path(remote).exists()


def test_telemetry_is_off() -> None:
    program = "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    with open_host() as host:
        assert host.run([host.python, "-c", program], timeout_s=60).stdout == "1\n"


def test_record() -> None:
    with open_host() as host:
        record = host.describe()
    assert record.device == "host"
    assert record.pinned_core in os.sched_getaffinity(0)
    assert "onnxruntime" in record.runtimes
    assert record.adds_in_16_bits is adds_in_16_bits(processor_flags())


def test_timeout() -> None:
    with open_host() as host, pytest.raises(DeviceError, match="did not end within 0 s"):
        host.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_command_that_cannot_start() -> None:
    with open_host() as host, pytest.raises(DeviceError, match="cannot be started"):
        host.run(["/nowhere/python"], timeout_s=1)


def test_unknown_device() -> None:
    with pytest.raises(ConfigError, match="there is no device 'phone'; --device takes host"):
        open_device("phone")
