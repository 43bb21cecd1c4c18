"""What holds for every test."""

from __future__ import annotations

import os

# onnxruntime reports home by default, and reads this when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
