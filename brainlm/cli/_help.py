"""`brainlm --help`: the verbs in the order in which data meet them, each with a whole sentence."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

SECTIONS: dict[str, tuple[str, ...]] = {
    "Start here": (
        "demo",
        "dataset",
        "onboard",
        "estimate",
        "cluster",
        "config",
        "atlas",
        "template",
        "masks",
        "prefetch",
    ),
    "One recording": (
        "motion",
        "fieldmap",
        "normalize-anat",
        "coregister-bold",
        "normalize-bold",
        "warp-bold",
        "resample",
        "confounds",
        "ica",
        "denoise",
        "parcellate",
        "resample-to-parcels",
        "run-batch",
    ),
    "Files of other pipelines": (
        "adopt",
        "adopt-to-parcels",
        "adopt-parcels",
        "parcellate-file",
        "import-arrow",
    ),
    "fMRIPrep": ("containers", "fmriprep"),
    "The cohort": (
        "prepare-atlas",
        "cohort",
        "scale-brackets",
        "scale-part",
        "scale",
        "write-shard",
        "index-shards",
        "shards",
    ),
    "The model": (
        "pretrain",
        "import-checkpoint",
        "finetune",
        "embed",
        "embed-files",
        "probe",
    ),
    "The evaluation": (
        "evaluate",
        "evaluate-reconstruction",
        "train-scaling",
        "compare-scaling",
        "predict-label",
        "evaluate-clinical",
        "evaluate-latent",
        "score-forecast",
        "compare-forecasts",
        "evaluate-networks",
        "evaluate-attention",
        "evaluate-perturbation",
        "evaluation-page",
    ),
    "To look at": ("qc-figure", "qc-page", "report", "audit"),
    "To be checked": ("reproducibility", "reproduce", "methods"),
    "Data with known truth": ("phantom", "phantom-check"),
}
_WHOLE_SENTENCE = 200


class SpelledGroup(TyperGroup):
    """A group of commands that says of each a whole sentence, in the order they were added."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one definition list."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_WHOLE_SENTENCE)) for name, one in commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows, col_max=26)


class SectionedGroup(TyperGroup):
    """A group of commands that shows its help in sections."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands by section; those of none come last."""
        known = [name for names in SECTIONS.values() for name in names]
        rest = [name for name in super().list_commands(ctx) if name not in known]
        return [name for name in known if name in self.commands] + rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one definition list for each section."""
        known = [name for names in SECTIONS.values() for name in names]
        rest = tuple(name for name in self.list_commands(ctx) if name not in known)
        for title, names in {**SECTIONS, "Others": rest}.items():
            rows = [
                (name, self.commands[name].get_short_help_str(_WHOLE_SENTENCE))
                for name in names
                if name in self.commands
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=26)
