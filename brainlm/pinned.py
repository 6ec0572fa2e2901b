"""A step run in a process of its own, where the numerical libraries have been kept to one thread.

ANTs and the BLAS read their number of threads and their seed from the environment once, when they
load. A Nipype process has usually loaded them by the time that a node runs, so a step that is to
give the same bytes as the command of the same name needs a fresh process.

The process is given its request, and gives its answer, as JSON files. Starting it takes about as
long as starting a command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from . import errors
from .config import parse_config
from .files import read_json, write_json
from .resources import package_dir
from .threads import ONE_THREAD

#: The new process looks for modules where this one does.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from brainlm.pinned import main; main(*sys.argv[2:])"
)
#: So much of what a step said before it broke is told, characters.
_TOLD = 4000


def run_pinned(
    step: str, arguments: Mapping[str, Any], options: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Run `step` ("module:function") with files below `folder` as its outputs; return its answer.

    The function is called as `function(folder, config, **arguments)`, with `options` a config as
    in YAML: what it leaves out has its default. Errors of ours arrive as they were raised.
    """
    with tempfile.TemporaryDirectory() as scratch:
        request, answer = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        write_json(request, {"arguments": dict(arguments), "options": dict(options)})
        places = json.dumps([*sys.path, str(package_dir().parent)])
        done = subprocess.run(
            [sys.executable, "-c", _START, places, step, str(folder), str(request), str(answer)],
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.exists():
            raise RuntimeError(f"{step} ended with {done.returncode}:\n{done.stderr[-_TOLD:]}")
        said = read_json(answer)
    if "error" in said:
        kind = getattr(errors, said["error"])
        raise kind(said["what"], file=said["file"], fix=said["fix"])
    result: dict[str, Any] = said["result"]
    return result


def main(step: str, folder: str, request: str, answer: str) -> None:
    """What the new process does."""
    module, _, name = step.partition(":")
    content = read_json(Path(request))
    try:
        config = parse_config(content["options"], source="the inputs of the node")
        result = getattr(import_module(module), name)(Path(folder), config, **content["arguments"])
    except errors.BrainLMError as error:
        told = {"what": error.what, "file": error.file, "fix": error.fix}
        write_json(Path(answer), {"error": type(error).__name__, **told})
    else:
        write_json(Path(answer), {"result": result})
