"""Section: the models' cards and the shards' datasheet, as they lie beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...files import read_json
from ...provenance import sha256_file
from ...shards.datasheet import CROISSANT_NAME, README_NAME
from .base import About, Section, Sharing, render

TITLE = "Model cards and datasheet"
#: Larger files of the shards' folder are checked by `brainlm shards verify` alone.
_SMALL = 64 << 20


def section(about: About, sharing: Sharing | None) -> Section:
    """The texts; and whether Croissant's hashes are still those of the files.

    The texts tell exact counts, so in the shareable variant only their places are named.
    """
    folder = about.path("shards_index").parent
    wrong, damaged = _wrong_hashes(folder)
    alarms = [
        f"shards/{name} is not the file that {CROISSANT_NAME} describes: run `brainlm "
        "index-shards` again, or restore it"
        for name in wrong
    ]
    if damaged:
        alarms.append(f"shards/{CROISSANT_NAME} cannot be read: {damaged}")
    html = render(
        "cards.html.j2",
        models=_cards(about, whole=sharing is None),
        datasheet=_text(folder / README_NAME, whole=sharing is None),
        croissant=f"shards/{CROISSANT_NAME}" if (folder / CROISSANT_NAME).exists() else None,
        whole=sharing is None,
    )
    return Section("cards", TITLE, html, tuple(alarms))


def _cards(about: About, *, whole: bool) -> list[dict[str, Any]]:
    """Of the pretrained model, of one for each label, and of the forecaster."""
    paths = [about.path("model"), about.path("forecaster")]
    paths += [about.path("finetuned", target=target) for target in about.targets]
    found = []
    for path in sorted({path.parent for path in paths}):
        text = _text(path / README_NAME, whole=whole)
        if text is not None:
            found.append({"path": about.study.relative(path / README_NAME), "text": text})
    return found


def _text(path: Path, *, whole: bool) -> str | None:
    """A card without the lines that only the Hub reads; None where there is none."""
    if not path.exists():
        return None
    if not whole:
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.startswith("---\n"):
        text = text.split("\n---\n", 1)[-1]
    return text.strip() + "\n"


def _wrong_hashes(folder: Path) -> tuple[list[str], str]:
    """Files whose bytes are not those that Croissant describes; and what is wrong with itself."""
    try:
        entries = read_json(folder / CROISSANT_NAME)["distribution"]
        told = {str(one["contentUrl"]): str(one["sha256"]) for one in entries if "sha256" in one}
    except FileNotFoundError:
        return [], ""
    except (ValueError, KeyError, TypeError) as error:
        return [], " ".join(str(error).split()) or type(error).__name__
    return [
        name
        for name, digest in sorted(told.items())
        if not (path := folder / name).is_file()
        or (path.stat().st_size <= _SMALL and sha256_file(path) != digest)
    ], ""
