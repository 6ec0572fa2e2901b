"""Versions that are known to go wrong, against those that made this study."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

_LIST = Path(__file__).with_name("known_bad.yaml")
#: How sidecars name another pipeline: its name, then its version.
_PIPELINE = re.compile(r"([A-Za-z][\w-]*)[ -]v?(\d[\w.+-]*)")


@dataclass(frozen=True)
class Defect:
    """A version that made something here, and what is wrong with it."""

    program: str
    version: str
    what: str
    source: str
    is_alarm: bool


def defects(software: Mapping[str, set[str]], pipelines: set[str]) -> Iterator[Defect]:
    """What is known of the versions that sidecars tell; `pipelines` as in "fMRIPrep 20.2.0"."""
    used = {name.lower(): set(versions) for name, versions in software.items()}
    for told in pipelines:
        if match := _PIPELINE.match(told):
            used.setdefault(match[1].lower(), set()).add(match[2])
    for entry in yaml.safe_load(_LIST.read_text(encoding="utf-8")):
        for version in sorted(used.get(entry["program"], ())):
            if _is_one_of(version, entry["versions"]):
                alarm = entry["level"] == "alarm"
                yield Defect(entry["program"], version, entry["what"], entry["source"], alarm)


def _is_one_of(version: str, versions: str) -> bool:
    try:
        return SpecifierSet(versions).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return not versions
