"""Which components are noise: by ICA-AROMA's rule, by a user's rule, or by a user's program."""

from __future__ import annotations

import ast
import operator
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..config.rule import parse_rule
from ..errors import InputError
from ..geometry import Array
from ..images import write_image
from ..provenance import sha256_file
from .components import ACCEPTED, REJECTED, read_noise
from .judge import Judged, write_metrics, write_mixing

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Not: np.logical_not,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
}
#: So much of what a program said before it failed is told, characters.
_TOLD = 300


def check_classifier(options: Mapping[str, Any], folder: Path) -> None:
    """Refuse a program that is not there, before hours are spent on what it is to judge."""
    if options["classifier"] and _program(options["classifier"][0], folder) is None:
        raise InputError(
            f"ica.classifier names a program that is not there: {options['classifier'][0]}",
            fix=f"give a program on PATH, or a path from {folder}",
        )


def with_verdict(
    found: Judged,
    options: Mapping[str, Any],
    mask: NDArray[np.bool_],
    affine: Array,
    *,
    folder: Path,
    tr: float,
) -> Judged:
    """The components with the verdict of whom the `ica` options name; `found` has ICA-AROMA's.

    `mask` (x, y, z) and `affine` place the maps that a program is given; it runs in `folder`.
    """
    if options["rule"]:
        noise = holds(parse_rule(options["rule"]), found.metrics)
        return _judged(found, noise, np.where(noise, "rule", ""), {"Rule": options["rule"]})
    if options["classifier"]:
        return _by_program(found, options["classifier"], mask, affine, folder, tr)
    return found


def holds(rule: ast.expr, metrics: pd.DataFrame) -> NDArray[np.bool_]:
    """For which components (rows) a parsed rule is true; a division by 0 is no number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        outcome = _value(rule, metrics)
    return np.broadcast_to(np.asarray(outcome, dtype=bool), len(metrics)).copy()


def _value(node: ast.AST, metrics: pd.DataFrame) -> Any:
    match node:
        case ast.Constant(value=value):
            return np.float64(value)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return metrics[name].to_numpy(dtype=float)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, metrics), _value(right, metrics))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand, metrics))
        case ast.BoolOp(op=op, values=values):
            first, *others = (_value(part, metrics) for part in values)
            for other in others:
                first = _OPERATORS[type(op)](first, other)
            return first
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [_value(side, metrics) for side in (left, *comparators)]
            pairs = zip(ops, sides[:-1], sides[1:], strict=True)
            outcomes = [_OPERATORS[type(op)](a, b) for op, a, b in pairs]
            return np.logical_and.reduce(np.broadcast_arrays(*outcomes))
    raise TypeError(f"{node!r} has passed the check of rules")


def _by_program(
    found: Judged,
    command: Sequence[str],
    mask: NDArray[np.bool_],
    affine: Array,
    folder: Path,
    tr: float,
) -> Judged:
    """Ask a program: COMMAND... MIXING.tsv MAPS.nii.gz METRICS.tsv VERDICT.tsv, without a shell.

    The first three are what `brainlm ica` would write, with ICA-AROMA's verdict among the
    metrics; the fourth is for the program to write.
    """
    with tempfile.TemporaryDirectory() as scratch:
        mixing, maps, metrics, verdict = (
            Path(scratch) / name
            for name in ("mixing.tsv", "components.nii.gz", "metrics.tsv", "verdict.tsv")
        )
        write_mixing(mixing, found.mixing)
        write_image(maps, found.volumes(mask), affine, in_mni=True, tr=1.0)
        write_metrics(metrics, found.metrics)
        arguments = [str(path) for path in (mixing, maps, metrics, verdict)]
        done = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env={**os.environ, "BRAINLM_TR": f"{tr:.10g}"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = " ".join((done.stderr or done.stdout)[-_TOLD:].split())
        fix = f"mend the program {' '.join(command)}, or leave ica.classifier empty"
        if done.returncode:
            raise InputError(
                f"The program in ica.classifier ended with {done.returncode}: {said}", fix=fix
            )
        if not verdict.exists():
            raise InputError(
                f"The program in ica.classifier wrote no verdict: {said}".rstrip(": "), fix=fix
            )
        names = found.metrics["component"].tolist()
        try:
            noise = read_noise(verdict, names)
        except InputError as error:
            raise InputError(
                f"The verdict of the program in ica.classifier cannot be used: {error.what}",
                fix=fix,
            ) from None
        reasons = _reasons(verdict, names)
    about = {"Command": list(command), "SHA256": program_digests(command, folder)}
    return _judged(found, noise, reasons, {"Classifier": about})


def program_digests(command: Sequence[str], folder: Path) -> dict[str, str]:
    """SHA-256 of the files below `folder` that a command names; of its program if there are none.

    So of `[python, judge.py]` that of judge.py: which Python runs it is the machine's affair.
    """
    files = {part: folder / part for part in command if (folder / part).is_file()}
    program = _program(command[0], folder)
    if not files and program is not None:
        files = {command[0]: program}
    return {part: sha256_file(path) for part, path in files.items()}


def _program(name: str, folder: Path) -> Path | None:
    """The program that is run in `folder` under this name."""
    place = str(folder / name) if os.sep in name else name
    found = shutil.which(place)
    return Path(found) if found else None


def _reasons(verdict: Path, names: list[str]) -> NDArray[np.str_]:
    """The column `rationale` of a verdict, in the order of `names`; empty without one."""
    table = pd.read_csv(verdict, sep="\t", dtype=str, keep_default_na=False)
    if "rationale" not in table.columns:
        return np.full(len(names), "")
    return table.set_index("component")["rationale"].loc[names].to_numpy(dtype=str)


def _judged(
    found: Judged, noise: NDArray[np.bool_], reasons: NDArray[Any], judge: dict[str, Any]
) -> Judged:
    metrics = found.metrics.assign(
        classification=np.where(noise, REJECTED, ACCEPTED), rationale=reasons
    )
    return replace(found, metrics=metrics, judge=judge)
