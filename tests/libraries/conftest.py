"""The table that `make test-libraries` ends with."""

from __future__ import annotations

import pytest

COLUMNS = ("library's mean", "its predictive", "model.onnx")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Accuracies that the tests of networks trained here recorded, by example."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [value for report in reports for key, value in report.user_properties if key == "row"]
    if not rows:
        return
    terminalreporter.section("accuracy on 2,000 test images")
    terminalreporter.write_line(f"{'':<28}" + "".join(f"{title:>16}" for title in COLUMNS))
    for name, *figures in sorted(rows):
        numbers = "".join(f"{figure:>16.4f}" for figure in figures)
        terminalreporter.write_line(f"{name:<28}{numbers}")
