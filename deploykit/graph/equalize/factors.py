"""Powers of two for the channels of a chain.

    s[c] = r[c]^alpha / a[c]^(1 - alpha)      k[c] = floor(log2 s[c] + offset)

a: largest activation of a channel, over its tensor's range; r: largest weight that multiplies it,
over its row's signal. With alpha = 0 every channel fills the range, with alpha = 1 all columns are
equally large, 1/2 is between. The range of the tensors stays. Of these the one is taken whose
predicted noise is least (`noise`), if that is much less than as the channels are.
Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias
correction", equation 11 (alpha = 1/2 of the weights on both sides); Xiao et al. 2023,
"SmoothQuant", equation 4 (alpha, activations in place of rows).
"""

from __future__ import annotations

import numpy as np

from deploykit.graph.equalize.chains import REACH, Chain
from deploykit.graph.equalize.noise import NoiseModel
from deploykit.spec.arrays import Float64Array, IntArray

ALPHAS = np.linspace(0.0, 1.0, 9)
OFFSETS = (0.0, 0.25, 0.5, 0.75)

WORTH = 0.9
"""Of its noise, what a chain has to be left with to be touched at all.

The prediction knows neither clipping nor rounding that compensates: what it promises beneath this
may turn out a loss (up to 0.14 dB of the outputs' SQNR in small networks at 4 bits, 0.05 above).
"""


def chosen_exponents(chain: Chain, model: NoiseModel) -> IntArray:
    """[n], by atom: 0 where it is pinned, and everywhere where little is gained."""
    still = np.zeros(len(chain.atoms), dtype=np.int64)
    best, least = still, WORTH * model.predicted(still)
    if not chain.free.any() or not model.loudest.any():
        return still
    loud, column = np.log2(_known(model.loudest)), np.log2(_known(model.column))
    for alpha in ALPHAS:
        wanted = alpha * column - (1.0 - alpha) * loud
        wanted -= (wanted + loud).max()
        for offset in OFFSETS:
            held = np.clip(np.floor(wanted + offset), -REACH, REACH).astype(np.int64)
            found = np.where(chain.free, held, 0)
            noise = model.predicted(found)
            if noise < least:
                best, least = found, noise
    return best


def _known(values: Float64Array) -> Float64Array:
    """A channel that shows nothing (never active, never read) counts as the smallest that does."""
    shown = values[values > 0]
    return np.where(values > 0, values, shown.min() if len(shown) else 1.0)
