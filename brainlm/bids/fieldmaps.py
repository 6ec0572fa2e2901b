"""Which field map serves a run: found by what the metadata say, never by a silent guess.

Asked in this order (BIDS 1.10, "Fieldmap data"): the run's B0FieldSource against the maps'
B0FieldIdentifier; the maps' IntendedFor; and where no map of the session says anything, the only
one of the session. Metadata that are missing or odd end as a note, and the run is then not
corrected.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .scan import Scan
from .timing import is_number
from .walk import Found

_DIRECTIONS = ("i", "i-", "j", "j-", "k", "k-")
#: Believable times: of an EPI readout, and between two gradient echoes, s.
_READOUT_S, _ECHO_GAP_S = (0.001, 0.5), (0.0005, 0.02)
_HZ_PER_UNIT = {"Hz": 1.0, "rad/s": 0.15915494309189535}
#: Where several kinds would do: the direct ones first.
_KINDS = ("fieldmap", "phasediff", "phases", "pepolar")


@dataclass(frozen=True)
class MapFile:
    """A file of fmap/, with everything known about it."""

    found: Found
    scan: Scan
    metadata: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    @property
    def intended_for(self) -> set[str]:
        """The images that it says it is meant for, relative to the dataset."""
        subject = f"sub-{self.found.subject}"
        stated = [text for text in _listed(self.metadata.get("IntendedFor")) if text]
        return {
            text.removeprefix("bids::").removeprefix("/")
            if text.startswith("bids::")
            else f"{subject}/{text.removeprefix(f'{subject}/')}"
            for text in stated
        }

    @property
    def identifiers(self) -> set[str]:
        """Its B0FieldIdentifier."""
        return set(_listed(self.metadata.get("B0FieldIdentifier")))


@dataclass(frozen=True)
class FieldMap:
    """A field map that can be used: its kind, its files and what each one is."""

    kind: str  # of `_KINDS`
    files: tuple[MapFile, ...]
    about: tuple[dict[str, Any], ...]  # of each file: `role`, and the numbers needed


def phase_encoding(
    metadata: dict[str, Any], shape: tuple[int, ...]
) -> tuple[str | None, float | None, list[str]]:
    """PhaseEncodingDirection and total readout time in s (None if unknown), and notes.

    The time is TotalReadoutTime, else EffectiveEchoSpacing x (lines - 1).
    """
    direction = metadata.get("PhaseEncodingDirection")
    if direction is None:
        return None, None, []
    if direction not in _DIRECTIONS:
        return None, None, [f"PhaseEncodingDirection is {direction!r}, not one of i to k-"]
    stated, notes = metadata.get("TotalReadoutTime"), []
    if stated is None:
        spacing = metadata.get("EffectiveEchoSpacing")
        axis = "ijk".index(direction[0])
        lines = metadata.get("ReconMatrixPE", shape[axis] if axis < len(shape) else None)
        if spacing is None or lines is None:
            return direction, None, []
        if not is_number(spacing) or not is_number(lines):
            return direction, None, [f"EffectiveEchoSpacing is {spacing!r}, not a number"]
        stated = spacing * (lines - 1)
        notes = [f"TotalReadoutTime from EffectiveEchoSpacing: {stated:.4g} s"]
    if not is_number(stated) or not _READOUT_S[0] <= stated <= _READOUT_S[1]:
        return direction, None, [f"TotalReadoutTime {stated!r} s is not believable"]
    return direction, float(stated), notes


def field_map_columns(
    bold: Found, metadata: dict[str, Any], scan: Scan, maps: Iterable[MapFile]
) -> tuple[dict[str, Any], list[str]]:
    """The columns of the recordings table about distortion, and notes; `maps` are the subject's."""
    direction, readout, notes = phase_encoding(metadata, scan.shape)
    chosen, map_notes = None, []
    candidates, how = _candidates(bold, metadata, list(maps))
    if not candidates and how:
        map_notes = [how]
    if candidates:
        chosen, map_notes = _best(candidates, direction, scan)
        missing = [
            name
            for name, value in (
                ("PhaseEncodingDirection", direction),
                ("TotalReadoutTime", readout),
            )
            if value is None
        ]
        if missing:
            chosen = None
            map_notes = [f"no distortion correction: the run has no {' and no '.join(missing)}"]
        elif chosen is None:
            map_notes = [f"no distortion correction: {'; '.join(map_notes)}"]
        elif how:
            map_notes.append(how)
    files = chosen.files if chosen else ()
    return {
        "pe_direction": direction,
        "total_readout_time": readout,
        "fmap_kind": chosen.kind if chosen else None,
        "fmap": json.dumps([one.found.path for one in files]) if chosen else None,
        "fmap_sha256": json.dumps([one.scan.fingerprint for one in files]) if chosen else None,
        "fmap_about": json.dumps(chosen.about) if chosen else None,
    }, [*notes, *map_notes]


def _candidates(
    bold: Found, metadata: dict[str, Any], maps: list[MapFile]
) -> tuple[list[MapFile], str]:
    """The files that may serve a run, and a note where nothing names it."""
    wanted = set(_listed(metadata.get("B0FieldSource")))
    if named := [one for one in maps if one.identifiers & wanted]:
        return _with_companions(named, maps), ""
    if named := [one for one in maps if bold.path in one.intended_for]:
        return _with_companions(named, maps), ""
    session = [one for one in maps if one.found.session == bold.session]
    if not session and not wanted:
        return [], ""
    silent = not wanted and not any(one.intended_for or one.identifiers for one in session)
    if not silent or len({_set_of(one) for one in session}) > 1:
        return [], "no distortion correction: no field map names this run"
    return session, "the only field map of the session is used, although it does not name the run"


def _with_companions(named: list[MapFile], maps: list[MapFile]) -> list[MapFile]:
    """Magnitudes often say nothing themselves: they come with the phase of the same name."""
    names = {one.found.identifier for one in named}
    return [
        one
        for one in maps
        if one in named or (_suffix(one) != "epi" and one.found.identifier in names)
    ]


def _set_of(one: MapFile) -> tuple[str, ...]:
    """What files of one field map have in common: the kind of family, and all entities but dir."""
    parts = [p for p in one.found.identifier.split("_") if not p.startswith("dir-")]
    return ("epi" if _suffix(one) == "epi" else "gre", *parts)


def _best(
    candidates: list[MapFile], direction: str | None, scan: Scan
) -> tuple[FieldMap | None, list[str]]:
    """The field map to use of those that may serve, and notes."""
    groups: dict[str, list[MapFile]] = defaultdict(list)
    for one in candidates:
        groups[one.found.identifier if _suffix(one) != "epi" else ""].append(one)
    usable: list[FieldMap] = []
    notes: list[str] = []
    for name in sorted(groups):
        found = _opposite(groups[name], direction, scan) if name == "" else _measured(groups[name])
        if isinstance(found, FieldMap):
            usable.append(found)
        else:
            notes.append(found)
    usable.sort(key=lambda one: _KINDS.index(one.kind))
    if len(usable) > 1:
        paths = ", ".join(one.files[0].found.path for one in usable)
        notes.append(f"{len(usable)} field maps serve this run ({paths}); the first is used")
    return (usable[0] if usable else None), notes


def _measured(files: list[MapFile]) -> FieldMap | str:
    """A field map of one name that holds phases or a field, or what is wrong with it."""
    parts = {_suffix(one): one for one in files}
    name = files[0].found.path.rpartition("_")[0]
    magnitude = next(
        (parts[m] for m in ("magnitude1", "magnitude2", "magnitude") if m in parts), None
    )
    if magnitude is None:
        return f"{name} has no magnitude image"
    if "fieldmap" in parts:
        units = parts["fieldmap"].metadata.get("Units")
        if units not in _HZ_PER_UNIT:
            return f"{name}_fieldmap has the Units {units!r}, not Hz or rad/s"
        needed = [(parts["fieldmap"], {"role": "fieldmap", "HzPerUnit": _HZ_PER_UNIT[units]})]
        kind = "fieldmap"
    elif "phasediff" in parts:
        about = parts["phasediff"].metadata
        gap = _echo_gap(about.get("EchoTime1"), about.get("EchoTime2"))
        if gap is None:
            return f"{name}_phasediff has no believable EchoTime1 and EchoTime2"
        needed, kind = [(parts["phasediff"], {"role": "phasediff", "EchoGap": gap})], "phasediff"
    elif "phase1" in parts and "phase2" in parts:
        gap = _echo_gap(*(parts[p].metadata.get("EchoTime") for p in ("phase1", "phase2")))
        if gap is None:
            return f"{name}_phase1 and _phase2 have no believable EchoTime"
        needed = [(parts[p], {"role": p, "EchoGap": gap}) for p in ("phase1", "phase2")]
        kind = "phases"
    else:
        return f"{name} has neither a phase nor a field"
    needed.append((magnitude, {"role": "magnitude"}))
    return _whole(kind, needed)


def _opposite(files: list[MapFile], direction: str | None, scan: Scan) -> FieldMap | str:
    """EPIs of opposite directions: a pair, or one that is opposite to the run itself."""
    if direction is None:
        return "the EPIs cannot be compared with a run of unknown direction"
    turned = direction.removesuffix("-") if direction.endswith("-") else f"{direction}-"
    sides: dict[str, tuple[MapFile, dict[str, Any]]] = {}
    notes = []
    for one in files:
        encoding, readout, odd = phase_encoding(one.metadata, one.scan.shape)
        path = one.found.path
        if encoding not in (direction, turned):
            notes.append(f"{path} has the PhaseEncodingDirection {encoding}")
        elif readout is None:
            notes.append("; ".join([f"{path} has no TotalReadoutTime", *odd]))
        elif encoding not in sides:
            about = {"role": "epi", "Direction": encoding, "TotalReadoutTime": readout}
            sides[encoding] = (one, about)
    if turned not in sides:
        notes.append(f"no EPI in the direction {turned}, opposite to the run's")
        return "; ".join(notes)
    needed = [sides[side] for side in (direction, turned) if side in sides]
    grids = [(one.scan.shape[:3], one.scan.zooms) for one, _ in needed]
    if len(needed) == 1:
        grids.append((scan.shape[:3], scan.zooms))
    (shape, zooms), (other_shape, other_zooms) = grids
    if shape != other_shape or any(
        abs(a - b) > 0.01 for a, b in zip(zooms, other_zooms, strict=True)
    ):
        return f"{needed[-1][0].found.path} has another grid than its opposite"
    return _whole("pepolar", needed)


def _whole(kind: str, needed: list[tuple[MapFile, dict[str, Any]]]) -> FieldMap | str:
    faults = [
        f"{one.found.path}: {', '.join([*one.faults, *one.scan.faults])}"
        for one, _ in needed
        if one.faults or one.scan.faults
    ]
    if faults:
        return "; ".join(faults)
    return FieldMap(kind, tuple(one for one, _ in needed), tuple(about for _, about in needed))


def _echo_gap(first: Any, second: Any) -> float | None:
    """Time between two echoes in s, or None where they are not believable."""
    if not is_number(first) or not is_number(second):
        return None
    gap = round(float(second) - float(first), 9)
    return gap if _ECHO_GAP_S[0] <= gap <= _ECHO_GAP_S[1] else None


def _suffix(one: MapFile) -> str:
    return one.found.path.rpartition("_")[2].split(".")[0]


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
