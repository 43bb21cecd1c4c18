"""The runner's one JSON object, read into a type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploykit.bench import runner


@dataclass(frozen=True)
class Answer:
    """What one process of the runner measured; fields as in runner.py."""

    runtime: str
    runtime_version: str
    load_ns: int
    first_inference_ns: int
    warmup_ns: tuple[int, ...]
    settled: bool
    samples_ns: tuple[int, ...]
    peak_memory_bytes: int | None
    affinity: str | None
    facts: Mapping[str, Any]
    model_bytes: int
    model_sha256: str
    runner_sha256: str


def parse_answer(stdout: str) -> Answer:
    """Read the last line of stdout; runtimes print lines of their own before it.

    ValueError says what is wrong with it.
    """
    lines = stdout.strip().splitlines()
    if not lines:
        raise ValueError("it printed nothing")
    fields = json.loads(lines[-1])
    if not isinstance(fields, dict) or fields.get("schema") != runner.SCHEMA:
        raise ValueError(f"its schema is not {runner.SCHEMA}")
    try:
        return _answer(fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a field is missing or of another type: {error}") from error


def _answer(fields: Mapping[str, Any]) -> Answer:
    memory = fields["memory"]
    start, peak = memory["start_bytes"], memory["peak_bytes"]
    return Answer(
        runtime=str(fields["runtime"]),
        runtime_version=str(fields["runtime_version"]),
        load_ns=int(fields["load_ns"]),
        first_inference_ns=int(fields["first_inference_ns"]),
        warmup_ns=tuple(map(int, fields["warmup"]["samples_ns"])),
        settled=bool(fields["warmup"]["settled"]),
        samples_ns=tuple(map(int, fields["samples_ns"])),
        peak_memory_bytes=None if start is None or peak is None else int(peak) - int(start),
        affinity=fields["affinity"],
        facts=dict(fields["facts"]),
        model_bytes=int(fields["model_bytes"]),
        model_sha256=str(fields["model_sha256"]),
        runner_sha256=str(fields["runner_sha256"]),
    )
