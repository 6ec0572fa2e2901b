"""The errors that a user may see: what happened, to which file, and how to mend it.

Exit codes: 2 for what the user gave us, 3 for data that cannot be used (the rest of the
cohort goes on), 1 for our own bugs and for the machine (disk full, no network): those may
succeed when tried again, so a workflow may retry them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class BrainLMError(Exception):
    """An error with a cause that we know, told in at most three lines."""

    exit_code = 1

    def __init__(self, what: str, *, file: str | Path | None = None, fix: str | None = None):
        """Say `what` went wrong, in which `file`, and the `fix` that the user can make."""
        super().__init__(what)
        self.what = what
        self.file = str(file) if file is not None else None
        self.fix = fix

    def __str__(self) -> str:
        """Render as `what`, `file: ...`, `fix: ...`, one line each."""
        lines = [self.what]
        if self.file:
            lines.append(f"  file: {self.file}")
        if self.fix:
            lines.append(f"  fix:  {self.fix}")
        return "\n".join(lines)


class InputError(BrainLMError):
    """The user's input (option, config, path) is wrong."""

    exit_code = 2


class DataError(BrainLMError):
    """A recording or a cohort cannot be used as it is."""

    exit_code = 3


class NotMadeError(DataError):
    """An input of a stage is not there (yet): no reason to give the recording up."""

    exit_code = 1


class UpstreamError(DataError):
    """An earlier stage has already given this recording up."""


class ResourceError(BrainLMError):
    """The machine failed us: disk full, no network, no memory. Trying again may help."""

    exit_code = 1


@contextlib.contextmanager
def about_file(file: str | Path) -> Iterator[None]:
    """Have errors that name no file name this one: what computes on arrays knows of none."""
    try:
        yield
    except BrainLMError as error:
        error.file = error.file or str(file)
        raise
