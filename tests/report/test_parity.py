"""A parity report as JSON and JUnit, with everything a detail may hold."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from deploykit.report.parity import junit_xml, parity_json
from deploykit.spec.parity import ParityReport, Step, Verdict


def report_of(*verdicts: Verdict, detail: str = "measured") -> ParityReport:
    return ParityReport(
        tuple(Step(4, f"a / {index}", verdict, detail) for index, verdict in enumerate(verdicts))
    )


@pytest.mark.parametrize(
    ("verdicts", "passed", "complete"),
    [
        ([Verdict.PASSED, Verdict.INAPPLICABLE], True, True),
        ([Verdict.PASSED, Verdict.SKIPPED], True, False),
        ([Verdict.PASSED, Verdict.FAILED], False, True),
        ([Verdict.SKIPPED, Verdict.FAILED], False, False),
    ],
)
def test_json_tells_the_whole_and_every_step(
    verdicts: list[Verdict], passed: bool, complete: bool
) -> None:
    found = json.loads(json.dumps(parity_json(report_of(*verdicts))))
    assert (found["passed"], found["complete"]) == (passed, complete)
    assert [step["verdict"] for step in found["steps"]] == [v.value for v in verdicts]
    assert found["steps"][0] == {
        "step": 4, "compared": "a / 0", "verdict": verdicts[0].value, "detail": "measured",
        "operator": None,
    }  # fmt: skip


def test_junit_counts_every_kind() -> None:
    suite = ET.fromstring(junit_xml(report_of(*Verdict), "b"))
    counts = {key: suite.get(key) for key in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "5", "failures": "1", "skipped": "3", "errors": "0"}
    assert suite.get("name") == "deploykit verify b"
    kinds = [case[0].tag for case in suite]
    assert kinds == ["system-out", "failure", *["skipped"] * 3]
    assert {case.get("classname") for case in suite} == {"ladder.step4"}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_junit_is_well_formed_whatever_a_detail_holds(verdict: Verdict) -> None:
    detail = "<&\"'> \x00\x01\x1b \ud800 \ufffe größe \U0001f600"
    suite = ET.fromstring(junit_xml(report_of(verdict, detail=detail), "\x02 & <b>"))
    (case,) = suite
    told = case[0].text or case[0].get("message") or ""
    assert "größe \U0001f600" in told
    assert "\x01" not in told
