"""What a study has recorded of how its files were made, against what would make them now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import DataError, InputError
from ..layout import TEMPLATES, Study, folder_of
from ..provenance import is_tombstone, read_sidecar, sidecar_path, software_versions, still_is
from ..recordings import Recording
from ..stages import STAGES, code_digest, stage_params

#: Files without which a recording was not done again.
ESSENTIAL = frozenset({"timeseries", "coverage", "motion"})
#: Kinds of file that a recording or its T1w leaves between raw data and parcels.
KINDS = tuple(kind for kind, path in TEMPLATES.items() if path.startswith("derivatives/brainlm/{"))
ATLAS_KINDS = ("atlas_table", "atlas_image")


def files_of(study: Study, recording: Recording, labels: Mapping[str, str]) -> dict[str, Path]:
    """Kind -> where that file of a recording lies, whether it is there or not."""
    fields = {**labels, "recording": recording.id, "folder": folder_of(recording.id)}
    if recording.anat_id:
        fields |= {"anat": recording.anat_id, "anat_folder": folder_of(recording.anat_id)}
    return {
        kind: study.path(kind, **fields)
        for kind in KINDS
        if recording.anat_id or "{anat}" not in TEMPLATES[kind]
    }


@dataclass
class Recorded:
    """What sidecars say, as they are read one after the other."""

    config: Config
    code: dict[str, set[str]] = field(default_factory=dict)  # stage -> digests
    software: dict[str, set[str]] = field(default_factory=dict)
    options: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # dotted -> recorded, now

    def note(self, path: Path) -> dict[str, Any] | None:
        """Read the sidecar of a file; None where there is no such file or it was given up."""
        if not path.exists() or is_tombstone(path) or not sidecar_path(path).exists():
            return None
        sidecar = read_sidecar(path)
        stage = sidecar.get("Stage")
        if stage not in STAGES:
            return None
        self.code.setdefault(stage, set()).add(str(sidecar.get("CodeDigest")))
        for package, version in sidecar.get("Software", {}).items():
            self.software.setdefault(package, set()).add(str(version))
        asked = sidecar.get("Parameters", {})
        for name, pair in differences(asked, stage_params(stage, self.config)).items():
            self.options.setdefault(name, pair)
        return sidecar

    def other_code(self) -> list[dict[str, Any]]:
        """The stages whose source files are not those that made the study's files."""
        return [
            {"stage": stage, "recorded": sorted(found), "now": code_digest(stage)}
            for stage, found in sorted(self.code.items())
            if found != {code_digest(stage)}
        ]

    def other_software(self) -> list[dict[str, Any]]:
        """The packages of which another version is installed now."""
        return [
            {"package": name, "recorded": sorted(found), "now": now}
            for name, found in sorted(self.software.items())
            if found != {now := _installed(name)}
        ]

    def other_options(self) -> list[dict[str, Any]]:
        """The options that the study's config has now and that did not make its files."""
        return [
            {"option": name, "recorded": recorded, "now": now}
            for name, (recorded, now) in sorted(self.options.items())
        ]


def _installed(package: str) -> str | None:
    known = software_versions()
    try:
        return known.get(package) or metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def differences(recorded: Any, now: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted name -> the two values, wherever they are not the same."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*recorded, *now}):
            below = f"{name}.{key}" if name else str(key)
            found |= differences(recorded.get(key), now.get(key), below)
        return found
    return {} if recorded == now else {name: (recorded, now)}


def sections_of(sidecars: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The config sections that made these files.

    Of two stages that recorded one section differently the later one's counts.
    """
    order = list(STAGES)
    sections: dict[str, Any] = {}
    for sidecar in sorted(sidecars, key=lambda one: order.index(one["Stage"])):
        sections |= {key: value for key, value in sidecar["Parameters"].items() if key != "seed"}
    return sections


def check_raw(sidecars: Iterable[Mapping[str, Any]], bids_dir: Path) -> None:
    """Refuse raw files that are gone, or not those that the study was made of."""
    seen: dict[str, str] = {}
    for sidecar in sidecars:
        for name, fingerprint in sidecar.get("Sources", {}).items():
            if name.startswith("bids::"):
                seen[name.removeprefix("bids::")] = fingerprint
    for relative, fingerprint in sorted(seen.items()):
        path = bids_dir / relative
        if not path.is_file():
            raise InputError(
                "A raw file that this recording was made of is gone",
                file=path,
                fix="restore it, set bids_dir in config/config.yaml to where the dataset is now, "
                "or choose other recordings (--seed, --recording)",
            )
        if fingerprint != "not hashed" and not still_is(path, fingerprint):
            raise DataError(
                "This raw file is not the one that the study was made of: its hash has changed",
                file=path,
                fix="restore the file; or, if the new one is right, run `brainlm onboard` and "
                "the workflow again",
            )
