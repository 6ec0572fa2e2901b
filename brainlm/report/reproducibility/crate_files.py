"""Files of the study as entities of an RO-Crate: alone where they are few, else as Collections."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .base import Sharing
from .graph import GUESSABLE, Node

#: Of one kind, so many files that one stage reads or makes are named one by one.
MOST_NAMED = 12

_FORMATS = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".html": "text/html",
    ".tsv": "text/tab-separated-values",
    ".yaml": "application/yaml",
    ".png": "image/png",
    ".gz": "application/gzip",
    ".parquet": "application/vnd.apache.parquet",
}


class Files:
    """Gathers the entities that actions refer to, each once."""

    def __init__(self, root: Path, sharing: Sharing | None):
        self._root = root
        self._sharing = sharing
        self._found: dict[str, dict[str, Any]] = {}
        self.raw: list[str] = []

    @property
    def data(self) -> list[dict[str, Any]]:
        """Files that are in the crate."""
        return [one for one in self._found.values() if one["@type"] == "File"]

    @property
    def others(self) -> list[dict[str, Any]]:
        """Files that are not: gone, or not for others."""
        return [one for one in self._found.values() if one["@type"] == "CreativeWork"]

    @property
    def collections(self) -> list[dict[str, Any]]:
        """Many files of one kind."""
        return [one for one in self._found.values() if one["@type"] == "Collection"]

    def refer(self, nodes: Sequence[Node]) -> list[str]:
        """The ids of entities for these files."""
        kinds: dict[str, list[Node]] = {}
        for node in nodes:
            if node.kind != "metric":
                kinds.setdefault(node.kind, []).append(node)
        names = []
        for kind, of_kind in sorted(kinds.items()):
            unnamed = [node for node in of_kind if self._is_of_somebody(node)]
            if len(of_kind) > MOST_NAMED or (unnamed and self._sharing is not None):
                names.append(self._collection(kind, of_kind))
            else:
                names += [self._file(node) for node in sorted(of_kind, key=lambda one: one.id)]
        return sorted(names)

    def _is_of_somebody(self, node: Node) -> bool:
        return node.recording is not None or "::" in node.id

    def _collection(self, kind: str, nodes: Sequence[Node]) -> str:
        """Many files as one: how many, and a hash of their names and hashes."""
        digest = hashlib.sha256(
            "".join(
                f"{node.sha256} {node.id}\n" for node in sorted(nodes, key=lambda n: n.id)
            ).encode()
        ).hexdigest()
        if self._sharing is not None:  # in no number: the difference of two may be one person's
            told = f"files of the kind {kind.replace('_', ' ')}"
            return self._keep({"@id": f"#files-{kind}", "@type": "Collection", "name": told})
        return self._keep(
            {
                "@id": f"#{kind}-{digest[:12]}",
                "@type": "Collection",
                "name": f"{len(nodes):,} files: {kind.replace('_', ' ')}",
                "description": (
                    "sha256 is that of the list of their hashes and names, one `hash name` a line, "
                    "by name"
                ),
                "sha256": digest,
            }
        )

    def _file(self, node: Node) -> str:
        path = self._root / node.id
        name = node.id if self._sharing is None else self._sharing.path(node.id)
        is_here = self._sharing is None and "::" not in node.id and path.is_file()
        entity: dict[str, Any] = {
            "@id": quote(node.id) if is_here else f"#{quote(name, safe='')}",
            "@type": "File" if is_here else "CreativeWork",
            "name": name,
        }
        if is_here:
            form = _FORMATS.get(path.suffix, "application/octet-stream")
            entity |= {"encodingFormat": form, "contentSize": str(path.stat().st_size)}
        else:
            entity["description"] = f"not in this crate ({node.state.value} in the study)"
        if node.sha256 and (self._sharing is None or node.kind not in GUESSABLE):
            entity["sha256"] = node.sha256
        return self._keep(entity)

    def _keep(self, entity: dict[str, Any]) -> str:
        return str(self._found.setdefault(entity["@id"], entity)["@id"])
