"""Options of watching a training. They decide nothing of its result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Section


class Tracking(Section):
    """Watching a training: none of it changes the result, or starts anything afresh."""

    tensorboard: bool = Field(
        True,
        description="write event files for TensorBoard beside the checkpoints, where the package "
        "tensorboard is installed",
    )
    wandb: str | None = Field(
        None, description="project on Weights & Biases to tell (package wandb); null: do not"
    )
    mlflow: str | None = Field(
        None,
        description="MLflow server to tell, http://..., or folder for a local store (package "
        "mlflow); null: do not",
    )
    offline: bool = Field(
        False, description="send nothing over the network: W&B and MLflow write files alone"
    )
    figures: Annotated[int, Field(ge=0)] = Field(
        8,
        description="a training draws its figures at most so often, and fine-tuning those of the "
        "epoch that it keeps; 0: no figures",
    )
