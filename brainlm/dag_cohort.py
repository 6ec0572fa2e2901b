"""What the workflow looks up of the cohort: its shards, its scaler, its splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .atlas.registry import find_atlas
from .config import Config
from .errors import InputError
from .layout import TEMPLATES
from .provenance import sha256_file, sha256_json
from .shards.plan import plan_shards, split_of


class Cohort(ABC):
    """Shards and scaler, known before anything has run."""

    study: Path
    config: Config
    rows: dict[str, dict[str, Any]]
    splits: dict[str, str]
    shards: list[str]

    @abstractmethod
    def pattern(self, kind: str) -> str:
        """The path of a kind of file, with Snakemake's wildcards left in it."""

    def _shards(self) -> list[str]:
        """The names of all shards: each is a job of its own."""
        config = self.config
        return list(
            plan_shards(
                self.rows.values(),
                self.splits,
                parcels=find_atlas(config.atlas.name).n_labels,
                options=config.shards.model_dump(mode="json"),
                tr=config.timing.tr,
            )
        )

    @property
    def fit_shards(self) -> list[str]:
        """The shards that the scaler is fitted on: none, where it has been fitted elsewhere."""
        return [name for name in self.shards if split_of(name) == "train" and not self.fitted()]

    def each_shard(self, kind: str, names: Iterable[str] | None = None) -> list[str]:
        """The path of a kind of file for these shards, or for every one."""
        chosen = self.shards if names is None else names
        return [self.pattern(kind).format(shard=name) for name in chosen]

    def scaler_parts(self) -> list[str]:
        """What the scaler is put together from; one shard alone needs no parts."""
        if len(self.fit_shards) < 2:
            return []
        return [self.pattern("scaler_brackets"), *self.each_shard("scaler_part", self.fit_shards)]

    def fitted(self) -> list[str]:
        """The scaler that has been fitted elsewhere, if the config names one."""
        return [str(self.config.scale.fitted)] if self.config.scale.fitted else []

    def _check_fitted(self) -> None:
        """Refuse a scaler that would be made from itself."""
        path = self.config.scale.fitted
        if path is not None and (self.study / path) == self.study / self.pattern("scaler"):
            raise InputError(
                "scale.fitted names the very file that `brainlm scale` makes",
                file=self.study / path,
                fix="copy it, e.g. to config/frozen.safetensors, and name the copy",
            )

    def split_table(self) -> list[str]:
        """The user's own table of splits, if there is one: the cohort is stale when it changes."""
        table = self.config.split.table
        return [str(table)] if table else []

    def exclude_list(self) -> list[str]:
        """The user's list of recordings to leave out, where there is one."""
        path = TEMPLATES["exclude_list"]
        return [path] if (self.study / path).exists() else []

    def exclude_content(self) -> str:
        """A digest of that list: the cohort is stale when it changes, and when it goes."""
        return "".join(sha256_file(self.study / path)[:16] for path in self.exclude_list())

    def split_content(self) -> str:
        """A digest of who is in which split: labels, families or the ledger may change it."""
        return sha256_json(sorted(self.splits.items()))[:16]
