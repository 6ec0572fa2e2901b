"""What the Snakefile knows of the jobs that train and evaluate models: how they are started."""

from __future__ import annotations

from .cluster.launch import Launch
from .config import Config


class Training:
    """Command lines and resources of the rules that use a GPU; a part of `dag.Dag`."""

    config: Config

    @property
    def pretraining(self) -> Launch:
        """A pretraining, of whatever size."""
        return self._launch(self.config.pretrain.processes, self.config.pretrain.nodes)

    @property
    def finetuning(self) -> Launch:
        """A fine-tuning."""
        return self._launch(self.config.finetune.processes)

    @property
    def evaluating(self) -> Launch:
        """Whatever evaluates a model, or trains a small one: one process."""
        return self._launch()

    def _launch(self, processes: int = 1, nodes: int = 1) -> Launch:
        return Launch(
            processes,
            nodes,
            gpus=0 if self.config.pretrain.device == "cpu" else 1,
            gres=self.config.jobs.gpu_gres,
        )
