"""What networks have in common that are trained from nothing by the loop of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class NetworkPace:
    """How such a network learns: what `tuning.tune` asks for."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float | None = None
    weight_decay: float = 0.0

    def at(self, rate: float) -> NetworkPace:
        """The same at another peak rate."""
        return replace(self, learning_rate=rate)


class NetworkTask:
    """The part of `train.task.Task` that does not hang on what is learned."""

    autoencoder = None

    @property
    def usual_rate(self) -> float:
        """There is none: each of their settings says its own."""
        raise NotImplementedError

    def choose_learners(self, seed: int) -> None:
        """All weights learn."""

    def rate_share(self, name: str) -> float:
        """All alike."""
        return 1.0
