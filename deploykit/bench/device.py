"""What a device is to the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploykit.spec.bench import DeviceRecord


@dataclass(frozen=True)
class Completed:
    """A command that ended on the device."""

    exit_code: int
    stdout: str
    stderr: str

    def last_error_line(self) -> str:
        """The last line on stderr, which is where the runner says why it failed."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.exit_code}, nothing on stderr"


class Device(Protocol):
    """A machine that runs Python. Paths on it are strings; `python` starts its interpreter.

    Every failure to reach it is a DeviceError; a command that ends with an exit code is not.
    """

    name: str
    python: str

    def describe(self) -> DeviceRecord:
        """Read what the device is, and in which state."""
        ...

    def push(self, local: Path) -> str:
        """Copy a file into the device's folder of this measurement, and give its path there."""
        ...

    def run(self, command: Sequence[str], timeout_s: float) -> Completed:
        """Run a command to its end; words reach it as they are, through no shell."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file back."""
        ...


class DeviceFactory(Protocol):
    """Opens a device; leaving the context removes everything that was put on it."""

    def __call__(self) -> AbstractContextManager[Device]: ...
