"""ONNX Runtime's 32-bit sums for every session of a test, where the processor lacks VNNI.

Tests say what files compute on phones. deploykit's own proofs choose their sums themselves (see
verify.saturation); this is for sessions that a test makes. tests/x86 has the kernels as they are,
in processes of its own.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from deploykit.runtime import ort


def take_exact_sums() -> None:
    """From here on, in this process."""
    import onnxruntime

    class ExactSession(onnxruntime.InferenceSession):  # type: ignore[misc]
        """Adds the option to whatever options are given."""

        def __init__(self, model: Any, sess_options: Any = None, **given: Any) -> None:
            options = sess_options or onnxruntime.SessionOptions()
            options.add_session_config_entry(ort.EXACT_SUMS, ort.Sums.EXACT.value)
            data = model if isinstance(model, bytes) else Path(model).read_bytes()
            # What is no ONNX file is for the runtime to refuse.
            with suppress(DecodeError):
                data = ort.with_own_constants(data)
            super().__init__(data, options, **given)

    onnxruntime.InferenceSession = ExactSession
