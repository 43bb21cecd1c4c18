"""Several outputs of a network: their names, and all of them as one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploykit.spec.arrays import AnyArray, Tensors


def joined_outputs(outputs: Tensors, names: Sequence[str], samples: int) -> AnyArray:
    """[N, ...]: a single output as it is, several flattened one behind the other [N, F].

    samples: N; an output may hold several rows for each.
    """
    if len(names) == 1:
        return outputs[names[0]]
    return np.concatenate([outputs[name].reshape(samples, -1) for name in names], axis=1)


def named_outputs(returned: Any) -> dict[str, Any]:
    """What a network returns by output name.

    A tensor is `output`; a mapping and a named tuple name theirs; those of another tuple or list
    are `output_0`, `output_1`, ...
    """
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    if isinstance(returned, tuple | list):
        names = getattr(returned, "_fields", [f"output_{i}" for i in range(len(returned))])
        return dict(zip(names, returned, strict=True))
    return {"output": returned}
