"""The weights that learn in fine-tuning: how fast, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from .distributed import ALONE, Ranks, averaging_gradients
from .lora import merge
from .optim import clip, optimizer_tensors, restore_optimizer
from .precision import Precision, weights_of
from .task import Pace, Task

_CLIP_NORM = 1.0
_BETAS = (0.9, 0.999)
_MODEL = "model."


class TuneState:
    """The weights that learn, and their optimiser, on one of `ranks` processes.

    Each process holds all of them; what does not learn is neither averaged nor saved.
    """

    def __init__(
        self,
        task: Task,
        pace: Pace,
        precision: Precision,
        seed: int,
        ranks: Ranks = ALONE,
    ):
        """Let the task choose what learns, and at which share of the rate."""
        task.choose_learners(seed)
        self.ranks = ranks
        self.model = task.model
        self.weights = weights_of(self.model, precision, sharded=False)
        self.learning = {name: w for name, w in self.weights.named.items() if w.requires_grad}
        self.optimizer = AdamW(
            [
                {
                    "params": [weight],
                    "share": task.rate_share(name),
                    "weight_decay": pace.weight_decay if weight.ndim == 2 else 0.0,
                }
                for name, weight in self.learning.items()
            ],
            betas=_BETAS,
            fused=True,
        )
        #: What a training step calls; `model` is for all else.
        self.trained: nn.Module = averaging_gradients(self.model, ranks)

    def update(self, rate: float) -> Tensor:
        """Clip the gradients and step; return their norm before, ()."""
        norm = clip(self.learning.values(), _CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.step()
        self.weights.give_back()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """All that changes, by name, where it lies."""
        return {
            **{_MODEL + name: weight for name, weight in self.learning.items()},
            **optimizer_tensors(self.learning, self.optimizer),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors` back."""
        with torch.no_grad():
            for name, weight in self.learning.items():
                weight.copy_(tensors[_MODEL + name])
        self.weights.give_back()
        restore_optimizer(self.learning, self.optimizer, tensors)

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the network whole, in float32."""
        for name, held in self.model.named_parameters():
            held.data = self.weights.named[name].detach()
        merge(self.model)
        self.model.eval()
