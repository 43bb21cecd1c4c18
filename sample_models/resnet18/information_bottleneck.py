"""Gates that multiply channels with Gaussian noise, and close where the noise drowns the channel.

z ~ N(post_z_mu, exp(post_z_logD)), one for each channel; post_z_mu [C], post_z_logD [C]
train():  one z for each example and channel; `settled` gates multiply as eval() does
eval():   z = post_z_mu where log alpha = post_z_logD - log(post_z_mu^2 + 1e-8) < 0, else 0
KL(posterior || prior) = 1/2 log(1 + post_z_mu^2 / exp(post_z_logD)) nats at the best prior
Source: Dai, Zhu, Guo, Wipf, "Compressing Neural Networks using the Variational Information
Bottleneck", ICML 2018, equations 8 to 12; names as in the authors' published code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-8
_INITIAL_LOGVAR = -9.0


class InformationBottleneck(nn.Module):
    """Gates of the channels of x [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.post_z_mu = nn.Parameter(torch.ones(channels))
        self.post_z_logD = nn.Parameter(torch.full((channels,), _INITIAL_LOGVAR))
        self.settled = False

    def settle(self) -> None:
        """Train on without noise: what is open stays so, what is closed too."""
        self.settled = True
        self.requires_grad_(False)

    def log_alpha(self) -> Tensor:
        """Log of the noise's variance over the mean's square  [C]."""
        return self.post_z_logD - (self.post_z_mu.square() + _EPSILON).log()

    def is_open(self) -> Tensor:
        """True where eval() does not multiply with zero  [C]."""
        return self.log_alpha().detach() < 0

    def kl_divergence(self) -> Tensor:
        """Nats by channel  [C]."""
        return 0.5 * functional.softplus(-self.log_alpha())

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.settled:
            noise = torch.randn(x.shape[:2])
            z = self.post_z_mu + noise * (0.5 * self.post_z_logD).exp()
            return x * z[:, :, None, None]
        return x * (self.post_z_mu * self.is_open())[:, None, None]
