"""Several outputs of a network as one array, for what is compared as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deploykit.spec.arrays import AnyArray, Tensors


def joined_outputs(outputs: Tensors, names: Sequence[str]) -> AnyArray:
    """[N, ...]: a single output as it is, several flattened one behind the other [N, F]."""
    if len(names) == 1:
        return outputs[names[0]]
    return np.concatenate([outputs[name].reshape(len(outputs[name]), -1) for name in names], axis=1)
