"""What the workflow looks up of the evaluation: which tasks are run, and what each ends with."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .config import Config

#: Task of evaluate.tasks -> the kinds of files that it ends with; in the paper's order.
DONE: dict[str, tuple[str, ...]] = {
    "reconstruction": ("reconstruction",),
    "scaling": ("scaling",),
    "clinical": ("clinical",),
    "latent": ("latent",),
    "forecast": ("forecast",),
    "networks": ("networks",),
    "attention": ("attention",),
    "perturbation": ("perturbation",),
}


class Evaluation(ABC):
    """The tasks of the evaluation that the config asks for."""

    config: Config
    targets: list[str]

    @abstractmethod
    def pattern(self, kind: str) -> str:
        """The path of a kind of file, with Snakemake's wildcards left in it."""

    def wants(self, task: str) -> bool:
        """Whether a task is run: evaluate.tasks names it, and there is a model for it."""
        if task == "forecast" and not self.config.finetune.forecast:
            return False
        return task in self.config.evaluate.tasks

    @property
    def evaluations(self) -> list[str]:
        """The files with which the tasks end, one for each label where they hang on labels."""
        return [
            path
            for task, kinds in DONE.items()
            if self.wants(task)
            for kind in kinds
            for path in self._of_targets(self.pattern(kind))
        ]

    def _of_targets(self, pattern: str) -> list[str]:
        if "{target}" not in pattern:
            return [pattern]
        return [pattern.format(target=target) for target in self.targets]

    @property
    def perturbed_model(self) -> str:
        """The model whose forecasts are perturbed: that which learned to forecast, if one did."""
        return self.pattern("forecaster" if self.config.finetune.forecast else "model")
