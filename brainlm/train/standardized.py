"""A new head reads z-scores while it learns.

What a pretrained encoder says of all recordings alike is many times larger than what differs
between them: a gradient step moves the common part, and a head on the plain vectors may never get
to the rest. So mean and SD over train recordings are taken out first, as the BatchNorm before the
head in He et al. (2022) does. In the end they are put into the layer's weights, and the model's
folder holds the plain layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Features that vary less than this share of the others count as if they varied so much.
_LEAST_SHARE = 0.01


class Standardized(nn.Module):
    """A linear layer that is given the z-scores of its input."""

    def __init__(self, base: nn.Linear, seen: Tensor):
        """`seen` (n, in): inputs from which mean and SD are taken."""
        super().__init__()
        self.base = base
        variance = seen.double().var(dim=0)
        sd = (variance + _LEAST_SHARE * variance.mean()).sqrt().clamp(min=1e-6)
        self.register_buffer("mean", seen.double().mean(dim=0).to(seen))
        self.register_buffer("sd", sd.to(seen))
        self.mean: Tensor
        self.sd: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in) -> (batch, out)."""
        out: Tensor = self.base((x - self.mean) / self.sd)
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer that does the same with the plain input."""
        weight = self.base.weight.double() / self.sd
        self.base.bias.sub_((weight @ self.mean.double()).to(self.base.bias))
        self.base.weight.copy_(weight)
        return self.base
