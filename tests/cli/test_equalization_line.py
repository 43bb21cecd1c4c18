"""What the export's table says of equalization."""

from __future__ import annotations

from typing import Any

from deploykit_cli.tables import equalization_line


def chain(moved: int, *pinned: str, smallest: float = 1.0, largest: float = 1.0) -> dict[str, Any]:
    return {
        "channels": 16, "moved": moved, "pinned": list(pinned),
        "smallest_factor": smallest, "largest_factor": largest,
    }  # fmt: skip


def test_channels_factors_and_the_commonest_reason_are_told() -> None:
    chains = [
        chain(9, smallest=0.5, largest=2.0),
        chain(3, "a layer that shares", smallest=1.0, largest=64.0),
        chain(0, "Sigmoid 'y' takes no factor through"),
        chain(0, "Clip 'x' has a bound"),
        chain(0, "Clip 'x' has a bound", "Sigmoid 'y' takes no factor through"),
    ]
    assert equalization_line(chains) == (
        "12 of 80 channels, by factors of 0.5 to 64; pinned: 3 of 5 chains of layers, such as "
        "where Clip 'x' has a bound"
    )


def test_where_nothing_moves_no_factors_are_told() -> None:
    assert equalization_line([chain(0)]) == "0 of 16 channels"
    assert equalization_line([]) == "0 of 0 channels"
