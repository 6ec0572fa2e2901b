"""Low-rank updates of matrices (Hu et al. 2022, LoRA).

A matrix W (out, in) stays as it is; beside it learns B A, with A (rank, in) and B (out, rank): a
hundredth of the numbers, gradients and moments. B starts at 0, so nothing changes at first. In the
end B A is added to W, so that a model's folder holds the network as it ever was.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """A linear layer and what is learned beside its matrix."""

    def __init__(self, base: nn.Linear, rank: int, source: torch.Generator):
        """Draw A; `base` is frozen."""
        super().__init__()
        self.base = base.requires_grad_(False)
        down = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(down, a=5**0.5, generator=source)
        self.down = nn.Parameter(down.to(base.weight.device))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with the update in its matrix."""
        self.base.weight += (self.up.double() @ self.down.double()).to(self.base.weight)
        return self.base


def adapt(model: nn.Module, rank: int, source: torch.Generator) -> None:
    """Freeze `model` and let the matrices of its attention and MLPs learn by `rank`."""
    model.requires_grad_(False)
    for parent, name, layer in list(_linear_layers(model)):
        setattr(parent, name, LowRank(layer, rank, source))


def merge(model: nn.Module) -> None:
    """Put all updates into their matrices."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank):
                setattr(parent, name, child.merged())


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Those of attention and MLPs: where they are, their name there, and themselves."""
    for path, parent in model.named_modules():
        for name, child in parent.named_children():
            inside = {"attention", "mlp"} & set(path.split("."))
            if inside and isinstance(child, nn.Linear):
                yield parent, name, child
