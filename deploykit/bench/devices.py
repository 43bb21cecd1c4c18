"""The devices that exist, by the name that --device takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from deploykit.bench.device import Device, DeviceFactory
from deploykit.bench.host import open_host
from deploykit.errors import ConfigError

DEVICES: Mapping[str, DeviceFactory] = {"host": open_host}


def open_device(name: str) -> AbstractContextManager[Device]:
    """The device of that name, ready to measure on."""
    if name not in DEVICES:
        raise ConfigError(f"there is no device {name!r}; --device takes {', '.join(DEVICES)}")
    return DEVICES[name]()
