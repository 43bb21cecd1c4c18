"""onnxsim, kept away from everything that would rename or rewrite a weight with a variance."""

from __future__ import annotations

import onnx
import onnx.shape_inference
import onnx_ir as ir
import onnxsim

from deploykit.errors import GraphError
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network

SKIPPED = ("eliminate_duplicate_initializer", "fuse_preceding_mul_into_conv")
"""The first gives equal initializers one name: two zero biases would share one bias's variance. The
second moves a constant per channel into the next convolution even where it spreads one channel over
all of them, and calls that equal; scales are folded by our own passes."""

FUSING = (
    "fuse_add_bias_into_conv",
    "fuse_consecutive_mul",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
    "fuse_matmul_into_conv",
    "fuse_mul_into_conv",
    "fuse_reduce_sum_into_conv",
)
"""Left to our own passes where tensors lie on grids: a product is rounded before the sum."""


def simplify(network: Network) -> Rewritten:
    """Shape inference, dead code and identities by onnxsim 0.8.

    It runs after our own folding, so that no batch norm or gate is left for it to fold. Where it
    takes away an initializer that has a variance, or gives it more readers (whose own variance was
    another), or cannot read the graph, only shapes are inferred.
    """
    proto = ir.to_proto(network.model)
    skipped = [*SKIPPED, *(FUSING if network.given.activations else ())]
    try:
        simplified, equal = onnxsim.simplify(proto, skip_fuse_bn=True, skipped_optimizers=skipped)
    except RuntimeError:
        # It reads no operators of other domains, and no initializer that is a graph output.
        simplified, equal = None, True
    if not equal:
        raise GraphError("onnxsim changed what the network computes; please report the model")
    model = None if simplified is None else ir.from_proto(simplified)
    if model is None or any(
        _uses(model, name) != _uses(network.model, name) for name in network.variance
    ):
        model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    model.producer_name, model.producer_version = "deploykit", ""
    return Rewritten(network.rewritten(model))


def _uses(model: ir.Model, name: str) -> int:
    value = model.graph.initializers.get(name)
    return 0 if value is None else len(value.uses())
