"""A parity report as JSON and as JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from deploykit.spec.parity import ParityReport, Verdict

NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold even escaped; a tampered file may carry it in a tensor's name."""


def parity_json(report: ParityReport) -> dict[str, Any]:
    """Plain values: the verdict of the whole, and every step."""
    return {
        "schema": 1,
        "passed": not report.failed,
        "complete": report.complete,
        "steps": [
            {
                "step": step.number, "compared": step.compared, "verdict": step.verdict.value,
                "detail": step.detail, "operator": step.operator,
            }
            for step in report.steps
        ],
    }  # fmt: skip


def junit_xml(report: ParityReport, name: str) -> bytes:
    """One test case per step; a step that was not tried is a skipped test."""
    untried = {Verdict.SKIPPED, Verdict.INAPPLICABLE, Verdict.UNCHECKED}
    skipped = [s for s in report.steps if s.verdict in untried]
    failed = [s for s in report.steps if s.verdict is Verdict.FAILED]
    suite = ET.Element(
        "testsuite", name=_text(f"deploykit verify {name}"), tests=str(len(report.steps)),
        failures=str(len(failed)), skipped=str(len(skipped)), errors="0",
    )  # fmt: skip
    for step in report.steps:
        case = ET.SubElement(
            suite, "testcase", classname=f"ladder.step{step.number}", name=step.compared
        )
        if step in failed:
            ET.SubElement(case, "failure", message=_text(step.detail))
        elif step in skipped:
            ET.SubElement(case, "skipped", message=_text(step.detail))
        else:
            ET.SubElement(case, "system-out").text = _text(step.detail)
    ET.indent(suite)
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True)) + b"\n"


def _text(value: str) -> str:
    return NOT_XML.sub("?", value)
