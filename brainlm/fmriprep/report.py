"""Reading what fMRIPrep says of its own run: the report's section of errors, and crash files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

#: The element that NiReports gives the section, and its first words if steps failed.
_SECTION = "errors"
_FAILED = re.compile(r"One or more execution steps failed \((\d+)\)")
_CLEAN = "No errors to report!"
#: HTML elements without an end.
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "col", "source", "wbr"})


@dataclass(frozen=True)
class Crash:
    """One step that failed."""

    node: str
    traceback: str
    file: Path | None = None

    @property
    def reason(self) -> str:
        """The last line of the traceback that says something: the exception."""
        lines = [line.strip() for line in self.traceback.splitlines() if line.strip()]
        raised = [line for line in lines if re.match(r"^[\w.]*(Error|Exception|Warning)\b", line)]
        return (raised or lines or ["no reason is given"])[-1]


@dataclass(frozen=True)
class ErrorSection:
    """The section "Errors" of a report."""

    failed: int
    crashes: tuple[Crash, ...]


def read_error_section(html: str) -> ErrorSection | None:
    """The section of errors; None where the report has none that can be read."""
    parser = _SectionParser()
    parser.feed(html)
    text = " ".join("".join(parser.text).split())
    crashes = tuple(
        Crash(node.strip().removeprefix("Node Name:").strip(), trace.strip())
        for node, trace in zip(parser.nodes, parser.traces, strict=False)
    )
    if match := _FAILED.search(text):
        return ErrorSection(int(match[1]), crashes)
    return ErrorSection(0, ()) if _CLEAN in text else None


def read_crash(path: Path) -> Crash:
    """A crash file that Nipype wrote as text."""
    text = path.read_text(encoding="utf-8", errors="replace")
    first = text.partition("\n")[0]
    node = first.partition(": ")[2].strip() if first.startswith("Node") else path.name
    start = text.find("Traceback (")
    return Crash(node, text[start:] if start >= 0 else text, path)


def find_crashes(folder: Path) -> list[Crash]:
    """The crash files below an output folder, by name.

    The report looks for them in `sub-01/log/RUN` only; of a run by sessions they lie in
    `sub-01/ses-1/log/RUN`, and the report then finds nothing (fMRIPrep 25.2).
    """
    return [read_crash(path) for path in sorted(folder.rglob("crash*.txt"))]


class _SectionParser(HTMLParser):
    """Collects the text of the element with the id `errors`, its summaries and its traces."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0  # of open elements inside the section; 0 is outside
        self.text: list[str] = []
        self.nodes: list[str] = []
        self.traces: list[str] = []
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            return
        if self.depth:
            self.depth += 1
        elif dict(attrs).get("id") == _SECTION:
            self.depth = 1
        if self.depth and tag in ("summary", "pre"):
            self._into = self.nodes if tag == "summary" else self.traces
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("summary", "pre"):
            self._into = None
        if self.depth and tag not in _VOID:
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.text.append(data)
            if self._into is not None:
                self._into[-1] += data
