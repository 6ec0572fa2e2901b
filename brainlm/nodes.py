"""What every Nipype interface of this package is made of. Needs nipype: `brainlm[nipype]`.

An interface names a step, a function from files to files; its inputs are the arguments of that
function and options of the config. The step runs in a process of its own (`pinned.py`), so that
it gives the same bytes as the command, whatever the workflow around it has loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

# Nipype asks a server for its newest version when it is imported, unless it is told not to.
os.environ.setdefault("NO_ET", "1")

from nipype import Node, Workflow
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiPath,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.utility import IdentityInterface

from .config import Config
from .pinned import run_pinned

#: What the interfaces need of nipype they take from here, so that this module is imported first.
__all__ = [
    "BaseInterfaceInputSpec",
    "File",
    "IdentityInterface",
    "InputMultiPath",
    "Node",
    "StepInterface",
    "TraitedSpec",
    "Workflow",
    "option",
    "threads",
    "traits",
]


def option(section: str, key: str) -> Any:
    """The trait of an option: its default, its bounds and its description are the config's."""
    model: Any = Config.model_fields[section].annotation
    field = model.model_fields[key]
    about = {"desc": field.description, "usedefault": True, "section": section, "key": key}
    default = field.default
    if get_origin(field.annotation) is Literal:
        return traits.Enum(default, list(get_args(field.annotation)), **about)
    if get_origin(field.annotation) is Union:
        return traits.Any(default, **about)  # the config itself checks what it is given
    if isinstance(default, str):
        return traits.Str(default, **about)
    if isinstance(default, bool):
        return traits.Bool(default, **about)
    if isinstance(default, tuple):
        return traits.Tuple(*default, **about)
    bounds: dict[str, Any] = {}
    for limit in field.metadata:
        if (above := getattr(limit, "gt", None)) is not None:
            bounds |= {"low": type(default)(above), "exclude_low": True}
        if (least := getattr(limit, "ge", None)) is not None:
            bounds["low"] = type(default)(least)
        if (most := getattr(limit, "le", None)) is not None:
            bounds["high"] = type(default)(most)
    return traits.Range(value=default, **bounds, **about)


def threads() -> Any:
    """The trait `num_threads`, by which Nipype's plugins count; no result depends on it."""
    return traits.Range(
        value=1, low=1, usedefault=True, nohash=True, desc="threads that share the volumes"
    )


class StepInterface(SimpleInterface):
    """An interface that runs a step and hands on what it answers."""

    input_spec = BaseInterfaceInputSpec
    #: "module:function"
    _step: str

    def _run_interface(self, runtime: Any) -> Any:
        arguments: dict[str, Any] = {}
        options: dict[str, dict[str, Any]] = {}
        for name in self.inputs.copyable_trait_names():
            value, trait = getattr(self.inputs, name), self.inputs.trait(name)
            if not isdefined(value):
                continue
            if trait.section is None:
                arguments[name] = value
            else:
                options.setdefault(trait.section, {})[trait.key] = value
        self._results = run_pinned(self._step, arguments, options, Path(runtime.cwd))
        return runtime
