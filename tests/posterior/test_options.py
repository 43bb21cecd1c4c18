"""The options must not cost the command line an import of torch."""

from __future__ import annotations

import subprocess
import sys

from deploykit.posterior.options import BatchNormMode, PruneRule, PruneSpec


def test_values_are_those_of_the_command_line() -> None:
    assert [rule.value for rule in PruneRule] == ["family", "snr", "savage-dickey", "none"]
    assert [mode.value for mode in BatchNormMode] == ["keep", "reestimate", "analytic"]
    assert PruneSpec() == PruneSpec(PruneRule.FAMILY, None)


def test_options_and_inspection_do_not_import_torch() -> None:
    code = (
        "import sys, deploykit.posterior.options, deploykit.posterior.describe, "
        "deploykit.posterior.pruning; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
