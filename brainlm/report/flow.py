"""The pipeline as boxes and arrows, with what each stage has made so far."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ..wording import counted
from .gather import Findings, Progress
from .metrics import metric_table
from .outcome import count_statuses

WIDTH, HEIGHT = 1120, 246
_BOX_WIDTH, _BOX_HEIGHT, _GAP = 136, 78, 28
_ROWS = (26, 166)


@dataclass(frozen=True)
class Box:
    """One stage; `state` is done, partly or waiting. A `detail` of 20 letters fills the box."""

    column: int
    row: int
    title: str
    number: str
    detail: str
    state: str

    @property
    def x(self) -> int:
        """Left edge."""
        return self.column * (_BOX_WIDTH + _GAP)

    @property
    def y(self) -> int:
        """Upper edge."""
        return _ROWS[self.row]

    width, height = _BOX_WIDTH, _BOX_HEIGHT


def boxes(findings: Findings) -> list[Box]:
    """All boxes, in the order of the pipeline: one row for recordings, one for the rest."""
    first = [_onboard(findings)]
    first += [(title, *_of_recordings(progress)) for title, progress in _preparation(findings)]
    second = [
        _cohort(findings),
        _scale(findings),
        _shards(findings),
        _pretrain(findings),
        _finetune(findings),
        _evaluate(findings),
        ("Report", f"{findings.progress['qc-figure'].whole:,}", "QC figures", "done"),
    ]
    return [
        Box(column, row, *content)
        for row, contents in enumerate((first, second))
        for column, content in enumerate(contents)
    ]


def _preparation(findings: Findings) -> list[tuple[str, Progress]]:
    """The steps from a run to its parcels, as many as were ours to do."""
    done, ran = findings.progress, findings.provenance.parameters
    if "adopt-parcels" in ran:
        return [("Adopt parcels", done["adopt-parcels"])]
    cleaned = [("Denoise", done["denoise"]), ("Parcellate", done["parcellate"])]
    if findings.provenance.adopted:
        return [("Adopt", done["adopt"]), *cleaned]
    return [
        ("Motion", done["motion"]),
        ("Normalize", _sum(done["normalize-anat"], done["normalize-bold"])),
        ("Resample", done["resample"]),
        ("Confounds", done["confounds"]),
        *cleaned,
    ]


def arrows(found: list[Box]) -> list[str]:
    """SVG paths from each box to the next; the second row starts again at the left."""
    paths = []
    for start, end in pairwise(found):
        if start.row == end.row:
            middle = start.y + start.height // 2
            paths.append(f"M{start.x + start.width + 3},{middle} H{end.x - 5}")
        else:
            lane = start.y + start.height + 18
            paths.append(
                f"M{start.x + start.width // 2},{start.y + start.height + 3} V{lane} "
                f"H{end.x + end.width // 2} V{end.y - 5}"
            )
    return paths


Content = tuple[str, str, str, str]  # title, number, detail, state


def _onboard(findings: Findings) -> Content:
    ineligible = count_statuses(findings.outcomes)["ineligible"]
    detail = f"{ineligible:,} ineligible" if ineligible else "all eligible"
    return "Onboard", f"{len(findings.recordings):,}", detail, "done"


def _of_recordings(progress: Progress) -> tuple[str, str, str]:
    if not progress.whole and not progress.given_up:
        return "–", "not run yet", "waiting"
    if progress.missing:
        return f"{progress.whole:,}", f"done, {progress.missing:,} to do", "partly"
    if progress.given_up:
        return f"{progress.whole:,}", f"done, {progress.given_up:,} given up", "partly"
    return f"{progress.whole:,}", "done", "done"


def _sum(*parts: Progress) -> Progress:
    """Two stages in one box: whole is what the last of them made."""
    return Progress(parts[-1].whole, parts[-1].given_up, max(part.missing for part in parts))


def _waiting(title: str) -> Content:
    return title, "–", "not run yet", "waiting"


def _cohort(findings: Findings) -> Content:
    if findings.cohort is None:
        return _waiting("Cohort")
    subjects = findings.cohort["subject"].nunique()
    return (
        "Cohort",
        f"{len(findings.cohort):,}",
        f"of {counted(subjects, 'subject')}",
        "done",
    )


def _scale(findings: Findings) -> Content:
    if findings.scaler is None:
        return _waiting("Scale")
    return "Scale", f"{len(findings.scaler['median']):,}", "parcels: median, IQR", "done"


def _shards(findings: Findings) -> Content:
    if findings.shards is None:
        return _waiting("Shards")
    count = findings.shards["shard"].nunique()
    volumes = int(findings.shards["n_timepoints"].sum())
    detail = f"of {short(volumes)} volumes"
    return "Shards", f"{count:,}", detail, "done"


def _pretrain(findings: Findings) -> Content:
    if findings.parameters is None:
        return _waiting("Pretrain")
    return "Pretrain", short(findings.parameters), "parameters", "done"


def _finetune(findings: Findings) -> Content:
    if not findings.clinical:
        return "Fine-tune", "–", "no labels chosen", "waiting"
    count = len(findings.clinical)
    made = sum(part.metrics is not None for part in findings.clinical.values())
    state = "done" if made == count else "partly" if made else "waiting"
    return "Fine-tune", f"{made} of {count}", f"label{'s' * (count != 1)}", state


def _evaluate(findings: Findings) -> Content:
    if findings.reconstruction is None:
        return _waiting("Evaluate")
    table = metric_table(findings.reconstruction, "model")
    estimate = table.methods[0].estimates.get("r2")
    return "Evaluate", estimate.text if estimate else "done", "masked R², test", "done"


def short(number: int) -> str:
    """A large number in three figures: 13.4 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
