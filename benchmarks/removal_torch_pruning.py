"""The same masks handed to torch-pruning: MACs left, and how far its result is from the network.

    PYTHON benchmarks/removal_torch_pruning.py --json FILE [--networks a,b] [--kill 0.3,0.5,0.7]

PYTHON: of an environment that has torch-pruning 1.6.1 beside deploykit's dependencies. Its
dependency graph (Fang et al. 2023) groups the layers that have to lose channels together; from each
group go, in one run, the channels that the mask kills in all of the group's layers ("all"), in
another those that it kills in any of them ("any"), as its indices per layer say literally.
The difference is that of torch in float64 on two random inputs, relative to the largest output.
`removal.py --beside FILE` prints both tools side by side.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import ARCHITECTURES
from networks.efficientnet_lite import efficientnet_lite0
from removal_graph import Graph, graph_of, random_input
from removal_masks import Mask, bias_of, draw, masked, patterns_for
from removal_sources import CHECKPOINT, EFFICIENTNET, fetched, state_file, unfolded
from removal_walk import walk
from torch import nn

Module = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
CLASSES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
KILLS = (0.3, 0.5, 0.7)
RULES = ("all", "any")


@dataclass(frozen=True)
class Outcome:
    """macs: of convolutions and linears; difference: relative; error: instead, where it raised."""

    macs: int | None
    macs_after: int | None
    difference: float | None
    error: str | None


def masked_module(name: str, graph: Graph, mask: Mask) -> tuple[nn.Module, dict[str, list[int]]]:
    """The torch network with the mask's channels dead, and the dead channels by module.

    Raises LookupError where a masked weight belongs to no module.
    """
    module = (
        efficientnet_lite0(fetched(CHECKPOINT))
        if name == EFFICIENTNET
        else ARCHITECTURES[name].build()
    )
    state = dict(torch.load(state_file(name), weights_only=True))
    changed = graph_of(masked(graph, mask))
    dead: dict[str, list[int]] = {}
    for node in changed.nodes:
        for weight in node.input[1:]:
            array = changed.constants.get(weight)
            if weight in state and array is not None and state[weight].shape == array.shape:
                state[weight] = torch.from_numpy(np.array(array))
        channels = mask.dead.get(node.input[1]) if len(node.input) > 1 else None
        if channels is None:
            continue
        bias = bias_of(changed, node)
        owner = node.input[1] if node.input[1] in state else f"{bias}".replace(".bias", ".weight")
        if owner not in state:
            raise LookupError(f"{node.name}: {node.input[1]} belongs to no module")
        if owner != node.input[1]:
            state[owner] = torch.from_numpy(np.array(changed.constants[node.input[1]].T))
            state[str(bias)] = torch.from_numpy(np.array(changed.constants[str(bias)]))
        dead[owner.removesuffix(".weight")] = list(channels)
    module.load_state_dict(state)
    return module.double().eval(), dead


def outcome(
    network: nn.Module, dead: Mapping[str, Sequence[int]], inputs: Sequence[torch.Tensor], rule: str
) -> Outcome:
    """Prune a copy by one rule and compare."""
    pruned = copy.deepcopy(network)
    try:
        _prune(pruned, dead, inputs[0], rule)
        with torch.no_grad():
            difference = max(_difference(network(one), pruned(one)) for one in inputs)
        return Outcome(_macs(network, inputs[0]), _macs(pruned, inputs[0]), difference, None)
    except Exception as error:
        said = str(error).strip().splitlines()
        return Outcome(None, None, None, f"{type(error).__name__}: {said[0] if said else ''}")


def _prune(
    network: nn.Module, dead: Mapping[str, Sequence[int]], example: torch.Tensor, rule: str
) -> None:
    import torch_pruning  # type: ignore[import-not-found]

    names = {module: name for name, module in network.named_modules()}
    spared = [m for m in network.modules() if isinstance(m, CLASSES) and names[m] not in dead]
    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    for group in graph.get_all_groups(ignored_layers=spared, root_module_types=list(CLASSES)):
        root = group[0].dep
        killed: list[set[int]] = []
        for item in group:
            layer = item.dep.target.module
            if isinstance(layer, CLASSES) and graph.is_out_channel_pruning_fn(item.dep.handler):
                own = set(dead.get(names[layer], ()))
                pairs = zip(item.idxs, item.root_idxs, strict=True)
                killed.append({int(at) for index, at in pairs if int(index) in own})
        chosen = set.intersection(*killed) if rule == "all" else set.union(*killed)
        if not chosen:
            continue
        smaller = graph.get_pruning_group(root.target.module, root.handler, sorted(chosen))
        if graph.check_pruning_group(smaller):
            smaller.prune()


def _difference(before: Any, after: Any) -> float:
    pairs = zip(_outputs(before), _outputs(after), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def _outputs(value: Any) -> Sequence[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def _macs(network: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and linears, counted while it runs."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, CLASSES)
        size = module.weight.numel()
        if isinstance(module, nn.Linear):
            total += size * math.prod(output.shape[1:-1])
        else:
            source = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            total += size * math.prod(source.shape[2:])

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, CLASSES)
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return total


def measure(name: str, kills: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Every mask on one network, by "network, pattern, kill"."""
    graph = graph_of(unfolded(name))
    found = walk(graph)
    inputs = [torch.from_numpy(random_input(graph, seed)).double() for seed in range(2)]
    results: dict[str, dict[str, Any]] = {}
    for pattern in patterns_for(graph, found):
        for kill in kills:
            network, dead = masked_module(name, graph, draw(graph, found, kill, pattern))
            results[f"{name}, {pattern.value}, {kill:g}"] = {
                rule: asdict(outcome(network, dead, inputs, rule)) for rule in RULES
            }
    return results


def main() -> int:
    """One process per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = [*ARCHITECTURES, EFFICIENTNET]
    parser.add_argument("--networks", default=",".join(known))
    parser.add_argument("--kill", default=",".join(map(str, KILLS)))
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        torch.set_num_threads(1)
        kills = [float(kill) for kill in arguments.kill.split(",")]
        print(json.dumps(measure(arguments.child, kills)))
        return 0
    results: dict[str, Any] = {}
    for name in arguments.networks.split(","):
        command = [sys.executable, __file__, "--child", name, "--kill", arguments.kill]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            print(f"{name} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        results.update(json.loads(done.stdout.splitlines()[-1]))
        for key, rules in results.items():
            if key.startswith(f"{name},"):
                print(key, *(f"{rule}: {_line(rules[rule])}" for rule in RULES), sep=" | ")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _line(found: Mapping[str, Any]) -> str:
    if found["error"] is not None:
        return str(found["error"])
    left = found["macs_after"] / found["macs"]
    return f"MACs left {left:.4f}, difference {found['difference']:.1e}"


if __name__ == "__main__":
    sys.exit(main())
