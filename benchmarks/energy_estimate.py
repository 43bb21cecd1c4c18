"""Joules of one inference, estimated from its arithmetic and the bytes it moves: no measurement.

Energies of a 45 nm process at 0.9 V: Horowitz, "Computing's Energy Problem (and what we can do
about it)", ISSCC 2014, figure 1.1.9. Weights come from DRAM once for each inference, which is what
a phone's network that runs now and then does; activations stay in a cache of 1 MB. A measured phone
differs by a factor; the ratio of two networks is what to read.
"""

from __future__ import annotations

from dataclasses import dataclass

_PICO = 1e-12
FLOAT_MAC = (3.7 + 0.9) * _PICO
"""A float32 multiplication and addition."""
INT8_MAC = (0.2 + 0.1) * _PICO
"""An 8-bit multiplication and a 32-bit addition: what int8 kernels do, whatever the values."""
DRAM_BYTE = 1300 / 8 * _PICO
"""Low end of 1.3 to 2.6 nJ for 64 bits."""
CACHE_BYTE = 100 / 8 * _PICO
"""64 bits of a 1 MB cache."""


@dataclass(frozen=True)
class Work:
    """Of one inference. weight_bytes: weights and biases as stored; activation_bytes: read and
    written by all operators; mac_joules: FLOAT_MAC or INT8_MAC.
    """

    macs: int
    weight_bytes: int
    activation_bytes: int
    mac_joules: float


def joules(work: Work) -> float:
    """Estimated, of one inference."""
    return (
        work.macs * work.mac_joules
        + work.weight_bytes * DRAM_BYTE
        + work.activation_bytes * CACHE_BYTE
    )
