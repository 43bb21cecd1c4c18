"""A pass may not move a variance onto other numbers: asserted after every pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import constant
from deploykit.spec.network import Network
from deploykit.spec.operator_sets import first_ir_version, first_opset


@dataclass(frozen=True)
class Rewritten:
    """What a pass returns: the new network, and the variances it changed or took away.

    updated: names whose value *and* variance the pass changed together.
    dropped: names with a variance whose initializer is no longer read by anybody.
    """

    network: Network
    updated: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()


Pass = Callable[[Network], Rewritten]


def apply_pass(name: str, rewrite: Pass, network: Network) -> Network:
    """Run a pass on a network and check what it says about variances.

    Every initializer with a variance keeps its name, shape and value, or the pass says that it
    updated both, or that the initializer is gone. The network given stays as it was. Where the pass
    brought an operator that the graph's opset lacks, the graph comes up to the one that has it.

    Raises GraphError that names the pass and the initializer.
    """
    initializers = network.model.graph.initializers
    held = {parameter: initializers[parameter].const_value for parameter in network.variance}
    result = rewrite(network)
    after = result.network
    if after is not network:
        _raise_opset(after.model)
    for parameter, variance in after.variance.items():
        array = constant(after.model.graph.initializers.get(parameter))
        if array is None:
            raise GraphError(f"pass {name} lost the initializer {parameter} but kept its variance")
        if array.shape != variance.shape:
            raise GraphError(
                f"pass {name} left {parameter} with shape {array.shape} and a variance of shape "
                f"{variance.shape}"
            )
    for parameter, variance in network.variance.items():
        if parameter in result.dropped:
            if parameter in after.model.graph.initializers:
                raise GraphError(f"pass {name} dropped the variance of {parameter}, which stays")
            continue
        if parameter not in after.variance:
            raise GraphError(f"pass {name} dropped the variance of {parameter} without saying so")
        if parameter in result.updated:
            continue
        if after.variance[parameter] is not variance and not np.array_equal(
            after.variance[parameter], variance
        ):
            raise GraphError(f"pass {name} changed the variance of {parameter} without saying so")
        before, value = held[parameter], after.model.graph.initializers[parameter]
        if before is value.const_value:
            continue
        if before is None or not np.array_equal(before.numpy(), np.asarray(constant(value))):
            raise GraphError(
                f"pass {name} changed the values of {parameter} and left its variance behind"
            )
    return after


def _raise_opset(model: ir.Model) -> None:
    """To the opset of its newest operator, with an IR version that may state it."""
    needed = first_opset(node.op_type for node in model.graph if node.domain in {"", "ai.onnx"})
    if needed > model.opset_imports.get("", 0):
        model.opset_imports[""] = needed
        model.ir_version = max(model.ir_version, first_ir_version(needed))
