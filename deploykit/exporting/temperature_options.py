"""What --temperature and --temperature-data ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from deploykit.errors import ConfigError, UsageError
from deploykit.spec.temperature import COLDEST, HOTTEST


class Target(Enum):
    """What a temperature is fitted to."""

    LABELS = "labels"
    MONTE_CARLO = "monte-carlo"


@dataclass(frozen=True)
class TemperatureOptions:
    """wanted: a target to fit to, or the temperature itself. data: to fit it on, if given."""

    wanted: Target | float
    data: Path | None = None


def temperature_options(
    value: object, data: object, eval_data: object
) -> TemperatureOptions | None:
    """Of --temperature and --temperature-data. Raises UsageError or ConfigError."""
    if value is None:
        if data is not None:
            raise UsageError("--temperature-data: say what to fit, with --temperature labels")
        return None
    path = None if data is None else Path(str(data))
    target = next((one for one in Target if value in (one, one.value)), None)
    if target is None:
        if path is not None:
            raise ConfigError(
                f"--temperature {value} is taken as it is; leave --temperature-data out"
            )
        return TemperatureOptions(_number(value))
    if target is Target.LABELS and path is None and eval_data is None:
        raise UsageError(
            "--temperature labels: give --temperature-data labelled.npz, or --eval-data, of which "
            "every second sample then fits the temperature and the others judge it"
        )
    return TemperatureOptions(target, path)


def _number(value: object) -> float:
    names = ", ".join(one.value for one in Target)
    try:
        number = float(str(value))
    except ValueError as error:
        raise UsageError(f"--temperature {value}: give {names}, or a number") from error
    if not COLDEST <= number <= HOTTEST:
        raise UsageError(
            f"--temperature {value}: give {names}, or a number from {COLDEST:g} to {HOTTEST:g}"
        )
    return number
