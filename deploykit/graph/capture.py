"""From a torch module to a float ONNX graph whose initializers keep their parameters' names."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.errors import ArchitectureError, GraphError
from deploykit.graph.edit import set_initializer
from deploykit.spec.arrays import Float32Array
from deploykit.spec.given import NOTHING_GIVEN, ActivationGrid, Given
from deploykit.spec.inputs import ONLY, GraphInputs
from deploykit.spec.joined import named_outputs
from deploykit.spec.network import Network, static_shape

OPSET = 20
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter writes of a node through which submodules it was reached, then its own."""


def capture(
    module: Any,
    variance: Mapping[str, Float32Array],
    example: GraphInputs,
    given: Given = NOTHING_GIVEN,
) -> Network:
    """Trace `module` (torch.nn.Module, eval mode) at the shapes of `example` into a Network.

    example: values of its only argument, which becomes `input`, or of arguments by name. Outputs
    are called as spec.joined names them. given: as folding returns it; activations are by tensor
    name from here on.

    optimize=False: the exporter's default folds batch norm into `0.weight` under the same name,
    and the variance of that name would silently belong to other numbers.

    What forward does not use (a head that training had beside) is not in the Network, nor its
    variance. Raises ArchitectureError where a shape does not fit, GraphError where tracing fails or
    where a parameter with a variance is used and missing from the graph.
    """
    import torch

    by_name = isinstance(example, Mapping)
    order = list(inspect.signature(module.forward).parameters)
    values = example if isinstance(example, Mapping) else {ONLY: example}
    # The exporter hands names out in the order of the call, whatever forward's own is.
    arguments = {name: torch.tensor(values[name]) for name in sorted(values, key=_places(order))}
    positional = () if by_name else tuple(arguments.values())
    keywords = arguments if by_name else {}
    try:
        with torch.no_grad():
            returned = module(*positional, **keywords)
    except Exception as error:
        shapes = [list(tensor.shape) for tensor in arguments.values()]
        raise ArchitectureError(
            f"the input shape {', '.join(map(str, shapes))} does not fit the network: "
            f"{_cause(error)}; give the shape that the factory's network takes with --input-shape"
        ) from error
    outputs = {name: tuple(tensor.shape) for name, tensor in named_outputs(returned).items()}
    inputs = {name: tuple(tensor.shape) for name, tensor in arguments.items()}
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                positional,
                kwargs=keywords,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
            )
    except Exception as error:
        raise GraphError(
            f"torch.onnx.export could not trace the network: {_cause(error)}; control flow that "
            "depends on the input's values is the usual reason"
        ) from error
    if program is None:
        raise GraphError("torch.onnx.export returned no graph for the network")
    activations = _by_tensor(program.model, given.activations)
    model = _detached(program.model)
    for what, expected, side in (
        ("inputs", inputs, model.graph.inputs), ("outputs", outputs, model.graph.outputs)
    ):  # fmt: skip
        found = {str(value.name): static_shape(value) for value in side}
        if found != expected:
            raise GraphError(
                f"the captured graph has the {what} {found}, and the network {expected}: an "
                "argument that forward does not read, or a tensor that it returns twice or as it "
                "came in, is the usual reason"
            )
    stored = _stored_names(module, model)
    variance = {stored.get(name, name): value for name, value in variance.items()}
    kept = {name: value for name, value in variance.items() if name in model.graph.initializers}
    missing = sorted(
        name for name, value in variance.items() if name not in kept and np.any(value > 0)
    )
    used = [name for name in missing if _is_used(module, name, positional, keywords)]
    if used:
        raise GraphError(
            f"the captured graph has no initializer named {', '.join(used)}: the network's "
            "forward uses these parameters under another name, or gives whole numbers alone, of "
            "which nothing tells that it does not"
        )
    grids = {stored.get(name, name): held for name, held in given.weights.items()}
    weights = {name: held for name, held in grids.items() if name in variance}
    return Network(model, kept, Given(weights, activations))


def _stored_names(module: Any, model: ir.Model) -> dict[str, str]:
    """The initializer of each parameter, of one with several names under any of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    found: dict[str, str] = {}
    for same in names.values():
        stored = [name for name in same if name in model.graph.initializers]
        found |= {name: name if name in stored else stored[0] for name in same if stored}
    return found


def _is_used(
    module: Any, name: str, positional: tuple[Any, ...], keywords: Mapping[str, Any]
) -> bool:
    """Whether an output moves with the parameter; so too where whole numbers cannot tell."""
    import torch

    own = copy.deepcopy(module)
    parameter = own.get_parameter(name).requires_grad_(True)
    with torch.enable_grad():
        outputs = named_outputs(own(*positional, **keywords)).values()
        if not all(output.is_floating_point() for output in outputs):
            return True  # what leads to a whole number has no gradient
        moving = [output.sum() for output in outputs if output.requires_grad]
        if not moving:
            return False
        (gradient,) = torch.autograd.grad(sum(moving), (parameter,), allow_unused=True)
    return gradient is not None


def _by_tensor(
    model: ir.Model, activations: Mapping[str, ActivationGrid]
) -> dict[str, ActivationGrid]:
    """What was stated of submodules, of the last tensor that each of their calls gives."""
    found: dict[str, ActivationGrid] = {}
    seen: set[str] = set()
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        module = scopes[-2] if len(scopes) > 1 else ""
        if module in activations and node.op_type == "Clip":
            found[str(node.outputs[0].name)] = activations[module]
            seen.add(module)
    missing = sorted(activations.keys() - seen)
    if missing:
        raise GraphError(
            f"the captured graph computes nothing in {', '.join(missing)}: the network's forward "
            "does not use these layers"
        )
    return found


def _places(order: list[str]) -> Callable[[str], int]:
    """Sorting key: where forward has an argument, behind all others where it takes any."""
    return lambda name: order.index(name) if name in order else len(order)


def _cause(error: Exception) -> str:
    """The first line of what the first error says, or its kind where it says nothing."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _detached(model: ir.Model) -> ir.Model:
    """A clone whose initializers own numpy arrays, cut off from the torch module."""
    clone = model.clone()
    for name, value in list(clone.graph.initializers.items()):
        if value.const_value is None:
            raise GraphError(f"the captured initializer {name} has no value")
        set_initializer(clone.graph, name, np.array(value.const_value.numpy(), copy=True))
    clone.producer_name, clone.producer_version = "deploykit", ""
    for value in clone.graph.initializers.values():
        value.doc_string = None
        value.metadata_props.clear()
    for node in clone.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
    clone.metadata_props.clear()
    clone.graph.metadata_props.clear()
    return clone


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own deprecations; users cannot act on that."""
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter_log.setLevel(level)
