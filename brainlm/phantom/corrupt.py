"""Breaking one run of a finished phantom in each way that real datasets are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_path, read_json, write_json, write_text
from ..geometry import Array
from ..images import read_image, write_image
from .parameters import CORRUPTIONS, Run

NAN_VOLUMES = 3
SHIFT_MM = 200.0


def corrupt(kind: str, out: Path, run: Run) -> None:
    """Apply `kind` (a key of `CORRUPTIONS`) to the files of `run` in the dataset `out`."""
    assert set(_BREAK) | _BY_PLAN == set(CORRUPTIONS)
    if kind in _BREAK:
        _BREAK[kind](out, run)


def bold_file(out: Path, run: Run) -> Path:
    """The BOLD file of a run."""
    return _folder(out, run) / "func" / f"{run.id}_bold.nii.gz"


def _folder(out: Path, run: Run) -> Path:
    folder = out / f"sub-{run.session.subject}"
    return folder / f"ses-{run.session.session}" if run.session.session else folder


def _edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content)


def _sidecar(out: Path, run: Run) -> Path:
    return _folder(out, run) / "func" / f"{run.id}_bold.json"


def _missing_tr(out: Path, run: Run) -> None:
    _edit_json(_sidecar(out, run), lambda content: content.pop("RepetitionTime"))
    _rewrite(out, run, tr=0.0)


def _tr_in_ms(out: Path, run: Run) -> None:
    _edit_json(_sidecar(out, run), lambda content: content.update(RepetitionTime=run.tr * 1000))


def _truncated_gz(out: Path, run: Run) -> None:
    path = bold_file(out, run)
    whole = path.read_bytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(whole[: int(0.6 * len(whole))])


def _nan_volumes(out: Path, run: Run) -> None:
    data = read_image(bold_file(out, run)).data.copy()
    middle = data.shape[3] // 2
    data[..., middle : middle + NAN_VOLUMES] = np.nan
    _rewrite(out, run, data=data)


def _wrong_affine(out: Path, run: Run) -> None:
    affine = read_image(bold_file(out, run)).affine.copy()
    affine[0, 3] += SHIFT_MM
    _rewrite(out, run, affine=affine)


def _flipped_left_right(out: Path, run: Run) -> None:
    data = read_image(bold_file(out, run)).data[::-1].astype(np.int16)
    _rewrite(out, run, data=data)


def _duplicate_id(out: Path, run: Run) -> None:
    """Give the participant a second row, ten years off, and the BOLD an unpacked copy."""
    path = out / "participants.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    own = next(line for line in lines if line.startswith(f"sub-{run.session.subject}\t"))
    values = own.split("\t")
    age = columns.index("age")
    values[age] = f"{float(values[age]) + 10:g}"
    write_text(path, "\n".join([*lines, "\t".join(values)]) + "\n")
    import nibabel as nib

    packed = bold_file(out, run)
    with atomic_path(packed.with_suffix("")) as temporary:
        nib.save(nib.load(packed), temporary)


def _empty_t1w(out: Path, run: Run) -> None:
    path = _folder(out, run) / "anat" / f"{run.session.id}_T1w.nii.gz"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"")


def _rewrite(
    out: Path,
    run: Run,
    *,
    data: np.ndarray | None = None,
    affine: Array | None = None,
    tr: float | None = None,
) -> None:
    """Write the BOLD of `run` anew with what is given replaced."""
    path = bold_file(out, run)
    old = read_image(path)
    write_image(
        path,
        old.data.astype(np.int16) if data is None else data,
        old.affine if affine is None else affine,
        tr=run.tr if tr is None else tr,
    )


_BREAK: dict[str, Callable[[Path, Run], None]] = {
    "missing-tr": _missing_tr,
    "tr-in-ms": _tr_in_ms,
    "truncated-gz": _truncated_gz,
    "nan-volumes": _nan_volumes,
    "wrong-affine": _wrong_affine,
    "flipped-left-right": _flipped_left_right,
    "duplicate-id": _duplicate_id,
    "empty-t1w": _empty_t1w,
}
#: These runs are made so from the start, by `plan_runs`.
_BY_PLAN = {"too-short", "uneven-runs"}
