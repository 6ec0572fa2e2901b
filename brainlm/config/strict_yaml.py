"""YAML that a person wrote: a key that stands twice in a mapping is a fault, told with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError


def read_yaml(path: str | Path, what: str, *, fix: str | None = None) -> Any:
    """What a file says; `what` it is called in the error of one that is not valid YAML."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    # A ValueError: not UTF-8, or a date that the calendar does not have.
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            f"{what} is not valid YAML: {fault_of(error)}", file=path, fix=fix
        ) from None


def parse_yaml(text: str) -> Any:
    """As PyYAML reads it, but for keys that stand twice: those raise a YAMLError."""
    return yaml.load(text, _EachKeyOnce)


def fault_of(error: Exception) -> str:
    """What is wrong in which line, in one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    begun = error.context_mark
    context = error.context and f" {error.context}"
    if context and begun and begun.line != error.problem_mark.line:
        context += f" that begins in line {begun.line + 1}"
    return f"line {error.problem_mark.line + 1}:{context or ''} {error.problem}"


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML itself takes the last of equal keys and says nothing.

    They are looked for in the text as it stands, before `<<` brings in the keys of another
    mapping: those a key beside it may well replace.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse a mapping with two equal keys."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (line := first.get((key.tag, key.value))) is not None:
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    f"the key {key.value!r} stands there once more, first in line {line + 1}",
                    key.start_mark,
                )
            first[key.tag, key.value] = key.start_mark.line
        return node
