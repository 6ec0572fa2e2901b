"""The public BIDS validator, where it is installed: run on a dataset, its findings counted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, ResourceError

#: Its names: of the one written for Deno (as PyPI and Deno install it), and of the older one.
COMMANDS = ("bids-validator-deno", "bids-validator")
#: Findings of one kind name so many files.
_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One kind of error or warning."""

    severity: str  # error or warning
    code: str  # such as SIDECAR_KEY_REQUIRED
    what: str
    count: int  # files (or places in them)
    files: tuple[str, ...]  # some of them

    def __str__(self) -> str:
        """Render as one line."""
        place = f": {', '.join(self.files)}" if self.files else ""
        more = ", ..." if self.count > len(self.files) > 0 else ""
        what = f" ({self.what})" if self.what else ""
        return f"{self.code}{what}, {self.count}x{place}{more}"


@dataclass(frozen=True)
class Verdict:
    """What the validator said of a dataset."""

    validator: str  # command and version of its schema
    findings: tuple[Finding, ...]

    def of(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def content(self) -> dict[str, Any]:
        """As it is written to onboarding/bids-validator.json."""
        return {
            "validator": self.validator,
            "errors": [_as_json(finding) for finding in self.of("error")],
            "warnings": [_as_json(finding) for finding in self.of("warning")],
        }


def find_validator() -> Path | None:
    """The validator's command, on PATH or beside this Python."""
    here = str(Path(sys.executable).parent)
    for name in COMMANDS:
        if found := shutil.which(name) or shutil.which(name, path=here):
            return Path(found)
    return None


def not_installed() -> InputError:
    """What to raise where it is asked for and not there."""
    return InputError(
        "The BIDS validator is not installed",
        fix="pip install bids-validator-deno, or leave --validate out: the checks that the "
        "workflow needs are always made",
    )


def validate(bids_dir: Path, timeout_s: float) -> Verdict:
    """Run the validator on a dataset; it reads names, tables, sidecars and headers."""
    command = find_validator()
    if command is None:
        raise not_installed()
    done = _run([str(command), str(bids_dir), *_json_option(command, timeout_s)], timeout_s)
    try:
        content = json.loads(done.stdout)
        is_new = "codeMessages" in content["issues"]
        findings = _new_findings(content) if is_new else _old_findings(content)
        schema = content.get("summary", {}).get("schemaVersion")
    except (ValueError, KeyError, TypeError, AttributeError):
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ResourceError(
            f"{command.name} ended with exit code {done.returncode} and gave no report: "
            f"{said[-1] if said else 'it said nothing'}",
            file=bids_dir,
            fix="run it by hand to see why, or leave --validate out",
        ) from None
    findings.sort(key=lambda finding: (finding.severity, finding.code))
    name = f"{command.name}, schema {schema}" if schema else command.name
    return Verdict(name, tuple(findings))


def _json_option(command: Path, timeout_s: float) -> list[str]:
    """The older validator, written for Node, knows --json; the newer one --format."""
    if command.name == COMMANDS[0]:
        return ["--format", "json"]
    helped = _run([str(command), "--help"], timeout_s)
    return ["--format", "json"] if "--format" in helped.stdout + helped.stderr else ["--json"]


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ResourceError(
            f"{Path(command[0]).name} took longer than {timeout_s:g} s",
            fix="run it by hand on a large dataset, or leave --validate out",
        ) from None
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run: {error.strerror}") from None


def _new_findings(content: dict[str, Any]) -> list[Finding]:
    """Issues of the validator written for Deno: one for each file."""
    issues = content["issues"]
    messages = issues.get("codeMessages") or {}
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for issue in issues["issues"]:
        if issue.get("severity") in ("error", "warning"):
            code = "/".join(filter(None, (issue["code"], issue.get("subCode"))))
            places[issue["severity"], code].append(str(issue.get("location") or "").lstrip("/"))
    return [
        _finding(severity, code, str(messages.get(code.partition("/")[0]) or ""), files)
        for (severity, code), files in places.items()
    ]


def _old_findings(content: dict[str, Any]) -> list[Finding]:
    """Issues of the validator written for Node: one for each kind, with its files."""
    found = []
    for severity in ("error", "warning"):
        for issue in content["issues"][f"{severity}s"]:
            files = [
                str((entry.get("file") or {}).get("relativePath") or "").lstrip("/")
                for entry in issue.get("files") or []
            ]
            found.append(
                _finding(severity, str(issue.get("key")), str(issue.get("reason") or ""), files)
            )
    return found


def _finding(severity: str, code: str, what: str, files: list[str]) -> Finding:
    named = tuple(sorted({name for name in files if name}))[:_EXAMPLES]
    return Finding(severity, code, " ".join(what.split()), max(1, len(files)), named)


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "what": finding.what,
        "count": finding.count,
        "files": list(finding.files),
    }
