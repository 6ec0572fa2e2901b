"""What the workflow looks up of the evaluation: which tasks are run, and what each ends with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, get_args

from .config import Config, scaling_points
from .config.learning import EvaluationTask
from .errors import InputError
from .stages import params_to_json, stage_params

#: The tasks in the paper's order. Each ends with the kind of file that bears its name, one for
#: each label where it hangs on them.
TASKS = get_args(EvaluationTask)


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
            for task in TASKS
            if self.wants(task)
            for path in self._of_targets(self.pattern(task))
        ]

    @property
    def evaluation_ends(self) -> list[str]:
        """All that the evaluation ends with; without a task there is no page either."""
        ends = self.evaluations
        return [*ends, self.pattern("evaluation_page")] if ends else []

    def _of_targets(self, pattern: str) -> list[str]:
        if "{target}" not in pattern:
            return [pattern]
        return [pattern.format(target=target) for target in self.targets]

    @property
    def perturbed_model(self) -> str:
        """The model whose forecasts are perturbed: that which learned to forecast, if one did."""
        return self.pattern("forecaster" if self.config.finetune.forecast else "model")

    @property
    def whole_recordings(self) -> list[str]:
        """Where recordings that were guessed whole are kept: nowhere where none are."""
        return [self.pattern("reconstruction_whole")] if self.config.evaluate.whole_masks else []

    def scaling_sums(self, wildcards: Any) -> list[str]:
        """What each model of the scaling curves was worth."""
        points = scaling_points(stage_params("compare-scaling", self.config)["scaling"])
        if not points:
            raise InputError(
                "There are no scaling curves to make: scaling.sizes is empty"
                + (", and a released model has none" if self.config.released.source else ""),
                fix="name sizes in the config, e.g. scaling: {sizes: [{name: tiny, preset: tiny}]}",
            )
        return [self.pattern("scaling_sums").format(point=point) for point in points]

    def options_of_point(self, stage: str) -> Callable[[Any], str]:
        """A stage's options for one point of the scaling curves: others may come and go."""

        def options(wildcards: Any) -> str:
            params = stage_params(stage, self.config)
            own = scaling_points(params["scaling"]).get(wildcards.point)
            if own is None:
                raise InputError(
                    f"There is no point {wildcards.point} in the scaling curves",
                    fix="name it as SIZE-SHARE, of scaling.sizes and scaling.shares in the config",
                )
            return params_to_json({**params, "scaling": own})

        return options
