"""deploykit: from a Bayesian-trained checkpoint to a proven integer network on a phone.

    import deploykit

    bundle = deploykit.export(
        "checkpoint.pt", model="model.py:network", input_shape=(1, 1, 28, 28),
        data="calibration.npz", out="bundle",
    )
    report = deploykit.verify_bundle(bundle.path)

The functions are the command line's verbs (`deploykit.verify`, `deploykit.bench` and
`deploykit.diagnose` are packages, hence the longer names). Heavy packages are imported when one
runs.
"""

from __future__ import annotations

from deploykit.api import bench_bundle, diagnose_bundle, export, inspect, prune, verify_bundle

__all__ = ["bench_bundle", "diagnose_bundle", "export", "inspect", "prune", "verify_bundle"]
