"""What --batch dynamic, and a batch of several samples, ask of a network."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.errors import ConfigError
from deploykit.spec.inputs import InputSpec
from deploykit.spec.network import Network
from deploykit.spec.quantized import Batch


def check_batch(inputs: Sequence[InputSpec], batch: Batch) -> None:
    """Refuse --batch dynamic beside inputs that hold another number of samples than one."""
    for spec in inputs if batch is Batch.DYNAMIC else ():
        if spec.shape[0] != 1:
            raise ConfigError(
                f"--batch dynamic: input {spec.name!r} is {list(spec.shape)}; give it a batch of 1 "
                "with --input-shape: the files then take any number of samples"
            )


def check_samples(network: Network, batch: Batch) -> None:
    """Refuse what mixes samples, where files take any number of them.

    network: as it entered: a mean over a batch of one is gone once it is canonical.
    """
    from deploykit.graph.passes.constants import fold_constants
    from deploykit.graph.sample_axis import require_samples_apart

    if batch is Batch.DYNAMIC:
        require_samples_apart(fold_constants(network).network)
