"""Which ONNX name each integer tensor of a network gets."""

from __future__ import annotations

from collections.abc import Iterable

from deploykit.errors import GraphError
from deploykit.spec.quantized import IoType, QuantizedNetwork


class Names:
    """The names taken in one graph."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted_2`, `wanted_3`, ... when it is taken."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


def integer_names(network: QuantizedNetwork) -> dict[str, str]:
    """ONNX name by tensor name: its own, save where a port needs that name.

    A UINT8 port is the integer tensor, so the tensor takes the port's name; otherwise a tensor
    that is called like a port becomes `<name>_quantized`.
    """
    ports = (*network.inputs, *network.outputs)
    public = [port.name for port in ports]
    if len(set(public)) != len(public):
        raise GraphError(f"Two ports share a name among {public}; give every port its own.")
    names: dict[str, str] = {}
    if network.io is IoType.UINT8:
        for port in ports:
            if port.tensor in network.indices:
                continue
            if port.tensor in names:
                raise GraphError(
                    f"The ports {names[port.tensor]!r} and {port.name!r} are the same uint8 "
                    f"tensor {port.tensor!r}; drop one of them, or use float ports."
                )
            names[port.tensor] = port.name
    taken = Names({*public, *network.tensors})
    for tensor in network.tensors:
        if tensor not in names:
            names[tensor] = taken.fresh(f"{tensor}_quantized") if tensor in public else tensor
    return names
