"""What a study was onboarded with, so that a change that came later is seen.

Labels, limits and TRs stand in the recordings table. A mapping in the config or a table of labels
that was changed afterwards changes nothing there, until `brainlm onboard` is run again.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import InputError
from ..layout import Study, path_from
from ..provenance import sha256_file, sha256_json

#: Options of `derivatives` that stages read, and reruns follow.
_OF_STAGES = {"order", "components"}
#: Kind of what another pipeline made -> the section by which onboarding chose among its files.
#: Raw data are brought to any space, and reduced to any atlas, by stages.
_CHOSEN_BY = {"volume": "space", "parcels": "atlas"}
#: From here on (bytes) a table is read only if size or time say that it may be another.
_LARGE = 1 << 24
#: The tables of sessions count as one.
SESSIONS = "sub-*/sub-*_sessions.tsv"


@dataclass(frozen=True)
class SeenTables:
    """The files that labels were read from, or would have been, as they were then.

    `seen` is the path of each (relative ones start at the study) and its state: size and
    SHA-256, or None for one that was not there.
    """

    seen: dict[str, tuple[int, str] | None]
    participants: str | None = None  # as --participants gave it


def see_tables(
    root: Path, study: Path, files: Iterable[Path], participants: Path | None = None
) -> SeenTables:
    """Look at `files` beside the dataset `root`; those of sessions are looked at together."""
    seen: dict[str, tuple[int, str] | None] = {}
    for path in files:
        of_session = path.name.endswith("_sessions.tsv") and path.parent.parent == root
        path = root / SESSIONS if of_session else path.absolute()
        name = path_from(study, path)
        if name not in seen:
            seen[name] = _state(path)
    given = None if participants is None else path_from(study, participants.absolute())
    return SeenTables(seen, given)


def onboarded_dataset(study: Path) -> str | None:
    """The --dataset that a study was made with; None where none was, or it is not known."""
    try:
        content = json.loads(Study(study).path("sources").read_bytes())
        return content.get("dataset") if isinstance(content, dict) else None
    except (FileNotFoundError, ValueError):
        return None


def record_bytes(
    config: Config,
    tables: SeenTables,
    hash_mode: str,
    dataset: str | None = None,
    kinds: Collection[str] = (),
) -> bytes:
    """What is kept in onboarding/sources.json; it holds no time, so equal data give equal bytes.

    `kinds` are those of the recordings table.
    """
    passed = {section for kind, section in _CHOSEN_BY.items() if kind not in kinds}
    content = {
        "dataset": dataset,
        "hash": hash_mode,
        "options": {name: one for name, one in _options(config).items() if name not in passed},
        "participants": tables.participants,
        "tables": {
            name: state and {"bytes": state[0], "sha256": state[1]}
            for name, state in tables.seen.items()
        },
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def check_onboarded(config: Config, study: Path) -> None:
    """Refuse a study whose recordings table does not follow its config and tables any more.

    Cheap: hashes of a few options, and of tables of labels below 16 MiB. A larger one is read where
    its size or a time newer than the record says that it may have changed. Files that cannot be
    read, as when the dataset has been moved away, are not compared; nor is anything in a study
    that an earlier version onboarded.
    """
    path = Study(study).path("sources")
    try:
        content = json.loads(path.read_bytes())
        recorded, tables = content["options"], content["tables"]
        again = _command(config, content["participants"], content["hash"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "This is no record of an onboarding", file=path, fix="run `brainlm onboard` again"
        ) from None
    now = _options(config)
    changed = [name for name, digest in recorded.items() if now.get(name, digest) != digest]
    if changed:
        raise InputError(
            f"{' and '.join(changed)} changed after the study was onboarded, so that the "
            "recordings table still follows the old options",
            file=study / "config/config.yaml",
            fix=f"{again}, or take the change back",
        )
    newer_than = path.stat().st_mtime_ns
    for name, state in tables.items():
        table = Path(os.path.normpath(study / name))
        if _differs(table, state, newer_than):
            what = "is new" if state is None else "changed"
            raise InputError(
                f"{table.name} {what} after the study was onboarded, so that the recordings table "
                "still has the old labels",
                file=table,
                fix=again,
            )


def _options(config: Config) -> dict[str, str]:
    """A hash of each section that onboarding acts on, without what is left at its default."""
    content: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    derivatives = content.get("derivatives", {})
    read = {key: value for key, value in derivatives.items() if key not in _OF_STAGES}
    return {
        "phenotypes": sha256_json(content.get("phenotypes", {})),
        "eligibility": sha256_json(content.get("eligibility", {})),
        "derivatives": sha256_json(read),
        "space": sha256_json(content.get("space", {})),
        "atlas": sha256_json(config.atlas.name),
    }


def _command(config: Config, participants: str | None, hash_mode: str) -> str:
    words = ["brainlm", "onboard", str(config.bids_dir), "--study", "."]
    words += ["--participants", participants] if participants else []
    words += ["--hash", hash_mode] if hash_mode != "full" else []
    return f"run `{shlex.join(words)}` in the study folder"


def _state(path: Path) -> tuple[int, str] | None:
    """Size and SHA-256 of a file; of those that a pattern fits, their sum and their names' too."""
    if "*" not in path.name:
        return (path.stat().st_size, sha256_file(path)) if path.is_file() else None
    files = _fitting(path)
    digests = [[file.name, sha256_file(file)] for file in files]
    return (sum(file.stat().st_size for file in files), sha256_json(digests)) if files else None


def _fitting(pattern: Path) -> list[Path]:
    return sorted(pattern.parents[1].glob(SESSIONS))


def _differs(path: Path, state: dict[str, Any] | None, newer_than: int) -> bool:
    try:
        if state is not None and state["bytes"] >= _LARGE and "*" not in path.name:
            # A copy may keep an old time of its content, never that of its change; nor may a link
            # that now points at an older file.
            changed = max(path.stat().st_ctime_ns, path.lstat().st_ctime_ns)
            if path.stat().st_size == state["bytes"] and changed < newer_than:
                return False
        now = _state(path)
    except OSError:
        return False
    if now is None:
        return False
    return state is None or now != (state["bytes"], state["sha256"])
