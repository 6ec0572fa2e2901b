"""How the shareable variant speaks: aliases, paths without names, no small numbers of people.

An alias is a keyed hash. The key is random and stays in the study, beside the table that holds the
names: so a second report has the same aliases, and without the study nobody can undo one by
trying names. A new key (delete the file) gives aliases that do not match the earlier ones.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from ...errors import DataError
from ...files import atomic_path
from ...layout import TEMPLATES

_KEY_BYTES = 32
_DIGITS = 10  # of an alias, hex: of 10,000 people two share one with a chance of 1 in 20,000
#: Fields of TEMPLATES that name somebody's data.
_RECORDING, _SUBJECT = ("recording", "anat", "job"), ("folder", "anat_folder")
#: Files of ours that are no kind of their own: copies of others beside what was made with them,
#: and the notes of trainings, whose folder is named after a hash of their content.
_COPIES = (
    *(f"shards/{name}" for name in ("normalization.safetensors", "parcels.tsv")),
    *(f"models/{{run}}/{name}" for name in ("normalization.safetensors", "parcels.tsv")),
    "models/{run}/checkpoints/{fingerprint}/made-of.json",
)
#: What a field may be, where not any name: only subjects' folders hold a slash.
_INSIDE = dict.fromkeys(_SUBJECT, r"sub-[^/]+(?:/ses-[^/]+)?") | {"fingerprint": "[0-9a-f]+"}
#: What stands for a path that is none of ours.
ELSEWHERE = "(a file outside the layout)"


@dataclass(frozen=True)
class Aliases:
    """`base.Sharing`; `k` is the smallest number of people that is told."""

    key: bytes
    k: int

    def recording(self, recording_id: str) -> str:
        """`rec-` and a hash."""
        return f"rec-{self._hash('recording', recording_id)}"

    def subject(self, subject: str) -> str:
        """`subject-` and a hash; `sub-01` and `01` are the same one."""
        return f"subject-{self._hash('subject', subject.removeprefix('sub-'))}"

    def path(self, path: str) -> str:
        """A path of the layout with aliases for names; of any other path nothing is left."""
        if path.startswith("bids::"):
            return "(raw data)"
        clean = PurePosixPath(path)
        if clean.is_absolute() or ".." in clean.parts:
            return ELSEWHERE
        for pattern, template in _layout():
            if found := pattern.fullmatch(path):
                return self._renamed(template, found.groupdict()) + found["_ending"]
        return ELSEWHERE

    def count(self, number: int) -> str:
        """The number to the nearest multiple of k: the difference of two tells nothing exactly."""
        if 0 < number < self.k:
            return f"<{self.k}"
        return f"about {round(number / self.k) * self.k:,}" if number else "0"

    def _renamed(self, template: str, fields: Mapping[str, str]) -> str:
        told = {
            name: self.recording(value)
            if name in _RECORDING
            else self.subject(value.partition("/")[0])
            if name in _SUBJECT
            else value
            for name, value in fields.items()
            if name != "_ending"
        }
        return template.format(**told)

    def _hash(self, what: str, name: str) -> str:
        return hmac.new(self.key, f"{what}:{name}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]


@cache
def _layout() -> list[tuple[re.Pattern[str], str]]:
    """Every template as a pattern of paths, with its file's own ending or that of its sidecar."""
    found = []
    for template in (*TEMPLATES.values(), *_COPIES):
        stem, dot, _ = template.rpartition(".nii.gz")
        if not dot:
            stem, dot, _ = template.rpartition(".")
        name = template if not dot else stem
        seen: set[str] = set()
        pattern = ""
        for part in re.split(r"(\{\w+\})", name):
            if not part.startswith("{"):
                pattern += re.escape(part)
            elif part in seen:
                pattern += f"(?P={part[1:-1]})"
            else:
                seen.add(part)
                pattern += f"(?P<{part[1:-1]}>{_INSIDE.get(part[1:-1], r'[^/]+?')})"
        endings = re.escape(template[len(name) :]) + (r"|\.json" if dot else "")
        found.append((re.compile(f"{pattern}(?P<_ending>{endings})"), name))
    return found


def read_key(path: Path) -> bytes:
    """The study's key, made when it is first asked for."""
    if path.exists():
        try:
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise DataError(
                "The key of the aliases is damaged",
                file=path,
                fix="delete it; the next shareable report then has other aliases",
            )
        return key
    with atomic_path(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(_KEY_BYTES) + "\n", encoding="ascii")
    return bytes.fromhex(path.read_text(encoding="ascii").strip())


@dataclass(frozen=True)
class Cell:
    """Recordings that a page counts together, and whose they are."""

    recordings: int
    subjects: frozenset[str]


@dataclass(frozen=True)
class Told:
    """Which numbers of a chain may be told: of each step its cells, and the total after it."""

    found: bool  # what was there first
    cells: tuple[tuple[bool, ...], ...]
    totals: tuple[bool, ...]


def tell_chain(steps: Sequence[Sequence[Cell]], k: int) -> Told:
    """What of a chain may be told so that no small number can be worked out from the others.

    Each step takes its cells away from what was there before; the last step's cells are what is
    left (the splits). A cell is hidden when it holds fewer than `k` people. Since the difference of
    two totals gives the sum of the hidden cells between them, a total is told only where that
    leaves each of those cells `k` values that it may have. Where even all hidden cells are too
    few, the smallest others are hidden with them.
    """
    hidden = {
        (place, number)
        for place, cells in enumerate(steps)
        for number, cell in enumerate(cells)
        if 0 < len(cell.subjects) < k
    }
    rest = sorted(
        (
            (len(cell.subjects), place, number)
            for place, cells in enumerate(steps)
            for number, cell in enumerate(cells)
            if len(cell.subjects) >= k
        ),
        reverse=True,
    )
    while not _is_safe(steps, hidden, k) and rest:
        hidden.add(rest.pop()[1:])
    totals = [False] * len(steps)
    waiting: set[tuple[int, int]] = set()
    for place in range(len(steps) - 1):  # the total after the last step is 0
        waiting |= {where for where in hidden if where[0] == place}
        after = {where for where in hidden if where[0] > place}
        if _is_safe(steps, waiting, k) and _is_safe(steps, after, k):
            totals[place], waiting = True, set()
    return Told(
        _is_safe(steps, hidden, k),
        tuple(
            tuple((place, number) not in hidden for number in range(len(cells)))
            for place, cells in enumerate(steps)
        ),
        tuple(totals),
    )


def _is_safe(steps: Sequence[Sequence[Cell]], hidden: set[tuple[int, int]], k: int) -> bool:
    """Whether the sum of these cells may be known: none of them is 0, as those are told."""
    cells = [steps[place][number] for place, number in hidden]
    people = frozenset[str]().union(*(cell.subjects for cell in cells))
    return not cells or (len(cells) > 1 and len(people) - len(cells) >= k - 1)
