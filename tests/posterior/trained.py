"""Random values such as training leaves: some gates clearly closed, the others clearly open."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.posterior.l0_layers import FixedL0Gate


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every parameter and running statistic random, in place; in eval mode.

    Every third gate, and about every third weight with a gate of its own, is closed.
    """
    generator = torch.Generator().manual_seed(seed)
    fixed = {name for name, part in module.named_modules() if isinstance(part, FixedL0Gate)}
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            layer, _, key = name.rpartition(".")
            if tensor.is_floating_point() and layer not in fixed:
                tensor.copy_(_values(key, torch.randn(tensor.shape, generator=generator)))
        for part in module.modules():
            _close_a_third(part, generator)
    return module.eval()


def _values(key: str, noise: Tensor) -> Tensor:
    """Open gates, weights away from zero, and little variance."""
    match key:
        case "running_var":
            return noise.exp()
        case "qz_loga" | "loc":
            return 1.0 + 0.5 * noise
        case "log_alpha":
            return -1.0 - 0.2 * noise
        case "mask" | "uniform":
            return torch.ones_like(noise)
        case "log_sigma":
            return -2.0 + 0.3 * noise
        case "log_sigma2" | "log_sigma_2" | "post_z_logD":
            return -6.0 + 0.3 * noise
        case "post_z_mu":
            return 1.0 + 0.1 * noise
        case _ if key.endswith("logvar"):
            return -3.0 + 0.3 * noise
        case _:
            return 0.3 * noise + 0.2 * noise.sign()


def _close_a_third(part: nn.Module, generator: torch.Generator) -> None:
    own = dict((*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)))

    def third(tensor: Tensor) -> Tensor:
        if tensor.numel() <= 16 or tensor.ndim == 1 or 1 in tensor.shape[:2]:
            return (torch.arange(tensor.numel()) % 3 == 1).reshape(tensor.shape)
        return torch.rand(tensor.shape, generator=generator) < 1 / 3

    if "post_z_mu" in own:
        own["post_z_logD"][third(own["post_z_logD"])] = 2.0
        own["post_z_mu"][0] *= -0.7
    elif "mu" in own and own["mu"].ndim == 1:
        own["mu"].copy_(-0.5 - own["mu"].abs())
        own["log_sigma"][third(own["mu"])] = 2.0
    elif "loc" in own:
        own["loc"][third(own["loc"])] = -4.0
    elif "log_alpha" in own:
        own["log_alpha"][third(own["log_alpha"])] = 4.0
    elif "mask" in own:
        own["mask"][third(own["mask"])] = 0.0
    elif "qz_loga" in own and own["qz_loga"].max() < 900:
        own["qz_loga"][third(own["qz_loga"])] = -4.0
    else:
        for spread in ("log_sigma", "log_sigma2", "log_sigma_2"):
            if spread in own:
                own[spread][third(own[spread])] = 4.0
