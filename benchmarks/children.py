"""Measurements that have a process of their own each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def run_children(
    commands: Mapping[str, list[str]],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Records of those that ended well, and the reason of the others by name.

    commands: by name; each prints its record as JSON in its last line. They run one after another.
    """
    records, failed = [], {}
    for name, command in commands.items():
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            failed[name] = last_line(done)
            print(f"{name}: {failed[name]}", file=sys.stderr)
            continue
        records.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: done", file=sys.stderr)
    return records, failed


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a process that failed said last; its exit code where it said nothing."""
    return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
