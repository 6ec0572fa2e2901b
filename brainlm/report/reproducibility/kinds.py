"""Which kind of file a path of the study is: the names of `brainlm.layout` read backwards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ...layout import TEMPLATES
from ...provenance import sidecar_path
from ...shards.plan import SHARD_REGEX

#: Kinds that the workflow removes once nobody needs them, unless the config keeps them.
VOLATILE = frozenset({"preproc_bold", "denoised_bold", "scaler_part"})

_NAME = r"sub-[^/_]+(?:_(?!space-|res-|desc-|from-|atlas-|stat-|seg-)[a-z]+-[^/_]+)*"
_FOLDER = r"sub-[^/]+(?:/ses-[^/]+)?"
_FIELDS = {
    "recording": _NAME,
    "anat": _NAME,
    "folder": _FOLDER,
    "anat_folder": _FOLDER,
    "shard": SHARD_REGEX,
}


class Named(NamedTuple):
    """What a path says of its file."""

    kind: str
    path: str  # of the data, relative to the study
    of: str | None  # recording_id, or anat_id


class Kinds:
    """Finds the kind of a file by its path, or by the path of its sidecar."""

    def __init__(self, fields: Mapping[str, str]):
        """`fields`: labels of the study's file names; models of other runs are found too."""
        run = re.escape(fields.get("run", "brainlm"))
        # The longest names go first: `RUN-forecast` is no label, `stat-coverage` no mean.
        items = sorted(TEMPLATES.items(), key=lambda item: -len(re.sub(r"\{[^}]*\}", "", item[1])))
        # The study's own run goes first: `RUN-age` is not the run of another name.
        own = [(kind, template, run) for kind, template in items if "{run}" in template]
        ways = [*own, *((kind, template, "[^/]+?") for kind, template in items)]
        self._data: dict[str, list[tuple[str, str, re.Pattern[str]]]] = {}
        self._sidecars: dict[str, list[tuple[str, str, re.Pattern[str]]]] = {}
        for kind, template, one in ways:
            for table, form in ((self._data, template), (self._sidecars, _sidecar(template))):
                pattern = re.compile(_pattern(form, one))
                table.setdefault(form.partition("/")[0], []).append((kind, template, pattern))

    def of_data(self, path: str) -> Named | None:
        """What a data file is."""
        return _find(self._data, path)

    def of_sidecar(self, path: str) -> Named | None:
        """What the file is that this JSON file describes; a JSON file may describe itself."""
        return _find(self._sidecars, path)


def _find(table: Mapping[str, list[tuple[str, str, re.Pattern[str]]]], path: str) -> Named | None:
    for kind, template, pattern in table.get(path.partition("/")[0], ()):
        if match := pattern.fullmatch(path):
            found = match.groupdict()
            whole = template.format(**found)
            return Named(kind, whole, found.get("recording") or found.get("anat"))
    return None


def _sidecar(template: str) -> str:
    """The template of the JSON file that describes files of a kind."""
    return str(sidecar_path(template))


def _pattern(template: str, run: str) -> str:
    parts = re.split(r"(\{[^}]*\})", template)
    return "".join(
        f"(?P<{part[1:-1]}>{_FIELDS.get(part[1:-1], run if part == '{run}' else '[^/]+?')})"
        if part.startswith("{")
        else re.escape(part)
        for part in parts
    )
