"""What every format of a bundle's models is, whatever of the network is in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from deploykit.bundle import ONNX_MODEL, TFLITE_MODEL
from deploykit.emit import onnx_metadata, tflite_metadata
from deploykit.runtime import litert, ort
from deploykit.spec.model_metadata import ModelMetadata


class FileFormat(Protocol):
    """A file format together with the runtime that executes it."""

    @property
    def key(self) -> str:
        """Its name on the command line and in plan.json."""
        ...

    @property
    def file(self) -> str:
        """Name of the file in a bundle."""
        ...

    @property
    def runtime(self) -> str:
        """Name of the runtime."""
        ...

    def version(self) -> str | None:
        """Version of the runtime, None where it cannot be imported."""
        ...

    def describe(self, data: bytes, metadata: ModelMetadata) -> bytes:
        """The same file with what an app has to know, where the format's tools look for it."""
        ...


@dataclass(frozen=True)
class OnnxFile:
    """ONNX and ONNX Runtime."""

    key: ClassVar[str] = "onnx"
    file: ClassVar[str] = ONNX_MODEL
    runtime: ClassVar[str] = "onnxruntime"

    def version(self) -> str | None:
        """See FileFormat."""
        return ort.version()

    def describe(self, data: bytes, metadata: ModelMetadata) -> bytes:
        """See FileFormat."""
        return onnx_metadata.with_metadata(data, metadata)


@dataclass(frozen=True)
class TfliteFile:
    """TFLite and LiteRT."""

    key: ClassVar[str] = "tflite"
    file: ClassVar[str] = TFLITE_MODEL
    runtime: ClassVar[str] = "litert"

    def version(self) -> str | None:
        """See FileFormat."""
        return litert.version()

    def describe(self, data: bytes, metadata: ModelMetadata) -> bytes:
        """See FileFormat."""
        return tflite_metadata.with_metadata(data, metadata)
