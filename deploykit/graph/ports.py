"""Inputs and outputs of an ONNX file: which sizes are open, and what they are set to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from deploykit.errors import ConfigError, GraphError

Axis = int | str
"""A size, or the name of the symbol that stands for one."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """One input or output as the file states it. axes: None where it states no shape.

    dtype: numpy's name of the element type. An open axis without a name of its own is called
    `<port>.<axis>`.
    """

    name: str
    axes: tuple[Axis, ...] | None
    dtype: str

    def open_axes(self) -> tuple[int, ...]:
        """Positions whose size the file leaves open."""
        return tuple(i for i, axis in enumerate(self.axes or ()) if isinstance(axis, str))


NAMELESS = frozenset({"", "?", "-1", "None", "none", "unk"})
"""What exporters write where a size is open and has no name: two of them need not be equal."""


def read_port(value: onnx.ValueInfoProto) -> Port:
    """A port from its declaration."""
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    if not kind.HasField("shape"):
        return Port(value.name, None, dtype)
    axes = (_axis(value.name, index, dim) for index, dim in enumerate(kind.shape.dim))
    return Port(value.name, tuple(axes), dtype)


def _axis(port: str, index: int, dim: onnx.TensorShapeProto.Dimension) -> Axis:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return f"{port}.{index}" if dim.dim_param in NAMELESS else str(dim.dim_param)


def parse_input_shapes(texts: Sequence[str]) -> dict[str | None, Shape]:
    """Shapes by input name; None: the only input.

    ["1,3,224,224"] -> {None: (1, 3, 224, 224)}; ["a=1,3", "b:1,5"] -> {"a": (1, 3), "b": (1, 5)}
    """
    shapes: dict[str | None, Shape] = {}
    for text in texts:
        name, found, sizes = text.rpartition("=" if "=" in text else ":")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1:
            raise ConfigError(
                f"--input-shape {text} is no shape; give whole numbers with the batch first, such "
                "as 1,3,224,224, or NAME=1,3,224,224 for each where there are several"
            )
        key = name if found else None
        if key in shapes:
            raise ConfigError(f"--input-shape gives {key or 'the input'} twice; give it once")
        shapes[key] = shape
    return shapes


def settle(
    path: Path, ports: Sequence[Port], given: Mapping[str | None, Shape]
) -> dict[str, Shape]:
    """A shape for every input: as given, as the file states it, and 1 for an open batch.

    Raises ConfigError where an open size is not given, or a given one contradicts the file.
    """
    sizes: dict[str, int] = {}
    for port, shape in _named(path, ports, given).items():
        _agree(path, port, shape, sizes)
    shapes = {}
    for port in ports:
        own = given.get(port.name, given.get(None))
        axes: tuple[Axis, ...] | None = own if port.axes is None else port.axes
        if axes is None:
            raise ConfigError(
                f"{path} states no shape for its input {port.name!r}; "
                f"give --input-shape {port.name}=1,3,224,224"
            )
        if axes and isinstance(axes[0], str):
            sizes.setdefault(axes[0], 1)
        unknown = [axis for axis in axes if isinstance(axis, str) and axis not in sizes]
        if unknown:
            stated = ",".join(str(axis) for axis in axes)
            raise ConfigError(
                f"{path}: its input {port.name!r} is [{stated}], and {', '.join(unknown)} may be "
                f"anything; give --input-shape {_example(port.name, axes)} with the sizes you use"
            )
        shapes[port.name] = tuple(a if isinstance(a, int) else sizes[a] for a in axes)
    return shapes


def _named(
    path: Path, ports: Sequence[Port], given: Mapping[str | None, Shape]
) -> dict[Port, Shape]:
    names = ", ".join(port.name for port in ports)
    if None in given and len(ports) != 1:
        raise ConfigError(
            f"{path} has the inputs {names}: give --input-shape NAME=SIZES once for each"
        )
    unknown = [name for name in given if name not in {None, *(port.name for port in ports)}]
    if unknown:
        raise ConfigError(f"--input-shape {unknown[0]}: {path} has the inputs {names}")
    found = {port: given.get(port.name, given.get(None)) for port in ports}
    return {port: shape for port, shape in found.items() if shape is not None}


def _agree(path: Path, port: Port, shape: Shape, sizes: dict[str, int]) -> None:
    """Take a given shape's sizes for the open axes, or say where it contradicts the file."""
    if port.axes is None:
        return
    stated = ",".join(str(axis) for axis in port.axes)
    refusal = ConfigError(
        f"--input-shape {','.join(map(str, shape))} does not fit {path}, whose input "
        f"{port.name!r} is [{stated}]; only sizes that the file leaves open may be chosen"
    )
    if len(shape) != len(port.axes):
        raise refusal
    for axis, size in zip(port.axes, shape, strict=True):
        if isinstance(axis, str):
            if sizes.setdefault(axis, size) != size:
                raise refusal
        elif axis != size:
            raise refusal


def _example(name: str, axes: Sequence[Axis]) -> str:
    sizes = [str(axis) if isinstance(axis, int) else "224" for axis in axes]
    if isinstance(axes[0], str):
        sizes[0] = "1"
    return f"{name}={','.join(sizes)}"


def fix_shapes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy whose inputs have these sizes, with every other tensor's shape inferred anew."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for port in fixed.graph.input:
        set_sizes(port, shapes[port.name])
    for port in fixed.graph.output:
        port.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise GraphError(
            f"the input shapes {dict(shapes)} do not fit the network ({reason}); "
            "give others with --input-shape"
        ) from error


def set_sizes(port: onnx.ValueInfoProto, sizes: Sequence[Axis]) -> None:
    """Declare these sizes and symbols."""
    shape = port.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        dim = shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size
