"""Section: what `brainlm reproduce` found when it did a part of the study again."""

from __future__ import annotations

from typing import Any

from ...files import read_json
from ...provenance import sha256_file
from .base import About, Section, Sharing, render

TITLE = "Done again"
COMMAND = "brainlm reproduce --sample 3"
#: Differences that the page lists; the file holds all.
_MOST = 40
_BAD = ("beyond tolerance", "not made again")


def section(about: About, sharing: Sharing | None) -> Section:
    """A table of stages, what differs, and by what it was done again."""
    path = about.study.path("reproduced")
    try:
        found = dict(read_json(path))
        content = _content(about, found, sharing)
    except FileNotFoundError:
        return _section(made=False, command=COMMAND, damaged="")
    except (ValueError, KeyError, TypeError) as error:
        why = "" if sharing else f" ({error})"  # its words may be anybody's name
        damaged = f"{about.study.relative(path)} cannot be read{why}: run `{COMMAND}` again"
        return _section(damaged, made=False, command=COMMAND, damaged=damaged)
    alarms = []
    if found["verdict"] in _BAD:
        first = next(one for one in content["differences"] if one["verdict"] in _BAD)
        alarms.append(
            "Done again, results were not as they had been recorded, the first: "
            f"{first['what']} ({first['verdict']})"
        )
    return _section(*alarms, made=True, command=COMMAND, **content)


def _section(*alarms: str, **content: Any) -> Section:
    return Section("reruns", TITLE, render("reruns.html.j2", **content), alarms)


def _content(about: About, found: dict[str, Any], sharing: Sharing | None) -> dict[str, Any]:
    """What the template prints."""
    differences = sorted(found["differences"], key=lambda one: one["verdict"] not in _BAD)
    return {
        "kind": found["kind"],
        "verdict": found["verdict"],
        "seed": found["seed"],
        "training": found["training"],
        "sample": [
            (sharing.recording(one["recording"]) if sharing else one["recording"], one["split"])
            for one in found["sample"]
        ],
        "stages": [_row(stage) for stage in found["stages"]],
        "code": found["other_code"],
        "software": found["other_software"],
        # Options may hold paths and names of labels.
        "options": [] if sharing else found["other_options"],
        "differences": [_told(one, sharing) for one in differences[:_MOST]],
        "more": max(0, len(differences) - _MOST),
        "since": _changed_since(about, found["of"]),
    }


def _row(stage: dict[str, Any]) -> dict[str, Any]:
    tolerance, far = stage["tolerance"], stage["max_abs"] > 0
    exact = tolerance["relative"] == 0
    allowed = "equal" if exact else f"{tolerance['relative']:g} SD, r {tolerance['correlation']:g}"
    if tolerance["relative"] is None:
        allowed = "not judged"
    bad = any(name in _BAD for name in stage["counts"])
    return {
        "stage": stage["stage"],
        "counts": ", ".join(f"{count} {name}" for name, count in stage["counts"].items()),
        "bad": bad,
        "distance": f"{stage['max_relative']:.2g} SD" if far else "0",
        "correlation": f"{stage['min_correlation']:.6f}" if far else "1",
        "allowed": allowed,
        "why": tolerance["why"],
    }


def _told(one: dict[str, Any], sharing: Sharing | None) -> dict[str, Any]:
    what, note = str(one["what"]), one["note"]
    if sharing is not None:
        path, mark, part = what.partition("#")
        named = part.startswith("sub-")
        what = sharing.path(path) + mark + (sharing.recording(part) if named else part)
        note = ""  # of an error, which may name a file
    distance = f"{one['max_relative']:.2g} SD" if "max_relative" in one else ""
    return {"what": what, "verdict": one["verdict"], "distance": distance, "note": note}


def _changed_since(about: About, recorded: dict[str, str]) -> list[str]:
    """The files that are not those that were done again."""
    return [
        name
        for name, digest in sorted(recorded.items())
        if not (path := about.study.root / name).exists() or sha256_file(path) != digest
    ]
