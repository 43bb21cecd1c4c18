"""A script that re-saves a checkpoint as tensors, for the environment that it was trained in.

deploykit never runs code from a file; its owner may, where the classes in it are installed.
"""

from __future__ import annotations

from pathlib import Path

from deploykit.posterior.pickles import refused_globals
from deploykit.spec.listing import listed

ENDING = ".tensors.pt"

SCRIPT = '''"""Re-save {name} as tensors, for `deploykit export`.

Run it where the network was trained{needs}. It unpickles the file,
which runs the code in it: only for a file that you trust.
"""

from collections.abc import Mapping
from enum import Enum

import torch

SOURCE, TARGET = {source!r}, {target!r}


def kept(value, name):
    """Tensors, numbers and text, by name; a network by its state_dict; anything else is told."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, torch.nn.Module):
        return kept(dict(value.state_dict()), name)
    if hasattr(value, "state_dict") and isinstance(getattr(value, "model", None), torch.nn.Module):
        # A Laplace fit, whose state lacks the weights.
        parts = {{"model": value.model, "laplace": dict(value.state_dict())}}
        return kept(parts, name)
    if hasattr(value, "state_dict"):
        return kept(dict(value.state_dict()), name)
    if isinstance(value, Enum):
        return kept(value.value, name)
    if hasattr(value, "__array__"):
        return torch.as_tensor(value.__array__())
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, Mapping) and set(value) == {{"params", "constraints"}}:
        return constrained(value)
    if isinstance(value, Mapping):
        entries = {{str(key): kept(part, f"{{name}}[{{key!r}}]") for key, part in value.items()}}
        return {{key: part for key, part in entries.items() if part is not None}}
    if isinstance(value, (list, tuple)):
        return [kept(part, f"{{name}}[{{index}}]") for index, part in enumerate(value)]
    print(f"left out: {{name}} ({{type(value).__module__}}.{{type(value).__name__}})")
    return None


def constrained(store):
    """Pyro's parameter store, which keeps its parameters in unconstrained form."""
    from torch.distributions import transform_to

    return {{
        name: transform_to(store["constraints"][name])(value).detach().cpu()
        for name, value in store["params"].items()
    }}


def has_tensors(value):
    """Whether a tensor is anywhere in what is kept."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(has_tensors(part) for part in value)
    return isinstance(value, torch.Tensor)


left = kept(torch.load(SOURCE, map_location="cpu", weights_only=False), "content")
if not has_tensors(left):
    raise SystemExit(f"no tensor is left of {{SOURCE}}, so nothing was written")
torch.save(left, TARGET)
print(f"wrote {{TARGET}}; next: deploykit inspect {{TARGET}}")
'''


def recipe(path: Path) -> str:
    """The script for this file. Only the names that it would import are read, nothing is run."""
    modules = dict.fromkeys(name.partition(".")[0] for name in refused_globals(path))
    others = [module for module in modules if module not in ("torch", "builtins", "__main__")]
    needs = f" (it needs {listed(others)})" if others else ""
    if "__main__" in modules:
        needs += ", with the classes of the training script defined above"
    return SCRIPT.format(
        name=path.name, needs=needs, source=str(path), target=str(path.with_suffix(ENDING))
    )
