"""Trying a file under test, whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deploykit.errors import DeploykitError
from deploykit.spec.parity import Step, Verdict

Result = TypeVar("Result")


def attempt(number: int, compared: str, run: Callable[[], Result]) -> Result | Step:
    """What `run` makes of a file under test; whatever the file does to it is a failed step."""
    try:
        return run()
    except Exception as error:
        return Step(number, compared, Verdict.FAILED, told(error))


def told(error: Exception) -> str:
    """Whatever a file under test does to its readers is what is wrong with it."""
    if isinstance(error, DeploykitError):
        return str(error)
    return f"the file cannot be run ({type(error).__name__}: {error})"
