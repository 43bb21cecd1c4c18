"""Bounds-checked access to the tables of a .tflite file, without a generated schema.

A flatbuffer table starts with the signed distance back to its vtable; the vtable holds its own
size, the table's size, and per field slot the field's offset in the table, 0 where it is absent.
A vector is its length followed by its elements. Source: flatbuffers.dev, "internals".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray


def root_table(data: bytes, identifier: bytes) -> Table:
    """The outermost table, after the file's identifier was checked."""
    if data[4:8] != identifier:
        raise GraphError(
            f"This is not a .tflite file: it lacks the identifier {identifier.decode()} at byte 4."
        )
    return Table(data, _unpack(data, "<I", 0))


@dataclass(frozen=True)
class Table:
    """One table at byte `position`. Slots are field numbers of schema.fbs; unions count 2."""

    data: bytes
    position: int

    def integer(self, slot: int, form: str = "<i", default: int = 0) -> int:
        """A scalar field; form: struct format of its type."""
        at = self._field(slot)
        return default if at is None else _unpack(self.data, form, at)

    def real(self, slot: int, default: float = 0.0) -> float:
        """A float32 field."""
        at = self._field(slot)
        return default if at is None else float(_scalar(self.data, "<f", at))

    def table(self, slot: int) -> Table | None:
        """A sub-table, or the table of a union."""
        at = self._field(slot)
        return None if at is None else Table(self.data, _follow(self.data, at))

    def tables(self, slot: int) -> tuple[Table, ...]:
        """A vector of tables; empty where absent."""
        span = self._vector(slot, 4)
        if span is None:
            return ()
        first, length = span
        places = range(first, first + 4 * length, 4)
        return tuple(Table(self.data, _follow(self.data, place)) for place in places)

    def array(self, slot: int, dtype: str) -> AnyArray | None:
        """A vector of scalars; dtype: little-endian numpy name. Read-only view of the file."""
        kind = np.dtype(dtype)
        span = self._vector(slot, kind.itemsize)
        if span is None:
            return None
        first, length = span
        return np.frombuffer(self.data, dtype=kind, count=length, offset=first)

    def text(self, slot: int) -> str:
        """A string; empty where absent."""
        span = self._vector(slot, 1)
        if span is None:
            return ""
        first, length = span
        try:
            return self.data[first : first + length].decode()
        except UnicodeDecodeError as error:
            raise _damaged(f"the text at byte {first} is not UTF-8") from error

    def _field(self, slot: int) -> int | None:
        """Byte at which a field lies, None where it is absent and has its default."""
        vtable = self.position - _unpack(self.data, "<i", self.position)
        size = _unpack(self.data, "<H", vtable)
        entry = 4 + 2 * slot
        if entry + 2 > size:
            return None
        offset = _unpack(self.data, "<H", vtable + entry)
        return self.position + offset if offset else None

    def _vector(self, slot: int, item_bytes: int) -> tuple[int, int] | None:
        """First byte and length of a vector."""
        at = self._field(slot)
        if at is None:
            return None
        start = _follow(self.data, at)
        length = _unpack(self.data, "<I", start)
        if start + 4 + length * item_bytes > len(self.data):
            raise _damaged(f"a list at byte {start} runs past its end")
        return start + 4, length


def _follow(data: bytes, at: int) -> int:
    return at + _unpack(data, "<I", at)


def _unpack(data: bytes, form: str, at: int) -> int:
    return int(_scalar(data, form, at))


def _scalar(data: bytes, form: str, at: int) -> int | float:
    if at < 0 or at + struct.calcsize(form) > len(data):
        raise _damaged(f"it points to byte {at} of {len(data)}")
    value: int | float
    (value,) = struct.unpack_from(form, data, at)
    return value


def _damaged(what: str) -> GraphError:
    return GraphError(f"The .tflite file is cut off or damaged: {what}; write or copy it again.")
