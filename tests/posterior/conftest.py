"""Networks here are tiny: one thread is faster than waiting for several."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
