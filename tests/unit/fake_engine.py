"""A stand-in for Apptainer and Docker: runs no container, writes what fMRIPrep 25 would.

It is installed under the engine's name by `fmriprep_study.install_engine`, and works on the true
folders behind the mounts that it is given. FAKE_MODE says how the run ends, FAKE_RECORD is a
file that gets its arguments. It imports nothing but the standard library, to start quickly.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

RUN = "20260101-120000_00000000-0000-4000-8000-000000000000"
VERSION = "25.2.5"
BOLD = (
    "desc-brain_mask.nii.gz",
    "desc-confounds_timeseries.json",
    "desc-confounds_timeseries.tsv",
    "desc-coreg_boldref.nii.gz",
    "desc-hmc_boldref.nii.gz",
    "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
    "from-orig_to-boldref_mode-image_desc-hmc_xfm.txt",
    "space-MNI152NLin6Asym_res-2_boldref.nii.gz",
    "space-MNI152NLin6Asym_res-2_desc-brain_mask.json",
    "space-MNI152NLin6Asym_res-2_desc-brain_mask.nii.gz",
    "space-MNI152NLin6Asym_res-2_desc-preproc_bold.json",
    "space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz",
)
ANAT = (
    "desc-brain_mask.nii.gz",
    "desc-preproc_T1w.nii.gz",
    "dseg.nii.gz",
    "label-GM_probseg.nii.gz",
    "from-MNI152NLin6Asym_to-T1w_mode-image_xfm.h5",
    "from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5",
    "space-MNI152NLin6Asym_res-2_dseg.nii.gz",
)
TRACEBACK = """Traceback (most recent call last):
  File "/app/.pixi/envs/fmriprep/lib/python3.12/site-packages/nipype/pipeline/plugins/multiproc.py"
    result["result"] = node.run(updatehash=updatehash)
{error}
"""
#: The markup of NiReports' section, of a run without and with failed steps.
CLEAN = '<p class="alert alert-success" role="alert">No errors to report!</p>'
FAILED = """<p class="alert alert-danger" role="alert">One or more execution steps failed \
({count}). Error details are attached below.</p>

    <details>
        <summary>Node Name: {node}</summary><br>
        <div class="small">
            File: <code>&lt;workdir&gt;/crash.txt</code><br />
            Working Directory: <code>/work/node</code><br />
            Inputs: <br />
            <ul>
            <li>in_file: <code>/data/x<y.nii.gz</code></li>
            </ul>
            <pre>{traceback}</pre>
        </div>
    </details>
"""
NODE = "fmriprep_25_2_wf.sub_01_wf.bold_task_rest_wf.bold_fit_wf.hmc_wf.mcflirt"
ERRORS = {
    "crash": "ValueError: zero-size array to reduction operation minimum which has no identity",
    "disk_full": "OSError: [Errno 28] No space left on device",
    "html_only": "ValueError: no brain is left",
    "session_crash": "ValueError: no brain is left",
}


def report(section: str) -> str:
    """A report as NiReports' template renders it, in short."""
    return (
        '<?xml version="1.0" encoding="utf-8" ?>\n<html><head>\n<style>#errors div, #errors p '
        "{ padding-left: 1em; }</style></head>\n<body>\n"
        '<nav><a class="dropdown-item" href="#errors">Errors</a></nav>\n'
        '<div id="About">\n<h1 class="sub-report-title">About</h1>\n'
        '<div id="boilerplate"><pre>Errors: none</pre></div>\n'
        '<div id="errors">\n<h2 class="sub-report-group">Errors</h2>\n'
        f"{section}\n</div>\n</div>\n</body>\n</html>\n"
    )


def main(arguments: list[str]) -> int:
    """Act like the engine, whose name comes first: the code with which it ends."""
    if record := os.environ.get("FAKE_RECORD"):
        with Path(record).open("a") as handle:
            handle.write(json.dumps(arguments) + "\n")
    arguments = arguments[1:]
    if arguments[:2] == ["image", "inspect"]:
        print("sha256:0")
        return int(os.environ.get("FAKE_IMAGE_CODE", "0"))
    if arguments[0] == "kill":
        return 0
    if arguments[0] in ("version", "images"):  # fmriprep-docker asks these
        print("27.0.0")
        return 0
    if "--entrypoint=free" in arguments:
        print("Mem:  32000  1000  31000")
        return 0
    mounts = _mounts(arguments)
    for source, _ in mounts.values():
        if not source.exists():
            print(f"FATAL: mount source {source} doesn't exist")
            return 255
    at = arguments.index("participant")
    inside = arguments[at + 1 :]
    data, out = (mounts[place][0] for place in arguments[at - 2 : at])
    subject = inside[inside.index("--participant-label") + 1]
    session = inside[inside.index("--session-label") + 1] if "--session-label" in inside else None
    filters = _filters(inside, mounts)
    (mounts["/work"][0] / "pid").write_text(str(os.getpid()))
    return _run(os.environ.get("FAKE_MODE", "ok"), data, out, subject, session, filters)


def _run(mode: str, data: Path, out: Path, subject: str, session: str | None, filters: dict) -> int:
    print(f"fMRIPrep stand-in: {mode}", flush=True)
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        time.sleep(60)
    if mode in ("license", "arguments", "no_bold", "silent"):
        text, code = {
            "license": ("ERROR: a valid license file is required for FreeSurfer to run.", 126),
            "arguments": ("fmriprep: error: unrecognized arguments: --wrong", 2),
            "no_bold": (f"RuntimeError: No BOLD images found for participant {subject}", 1),
            "silent": ("Segmentation fault", 1),
        }[mode]
        print(text)
        return code
    label = f"sub-{subject}"
    base = out / label / (f"ses-{session}" if session else "")
    prefix = f"{label}_ses-{session}_" if session else f"{label}_"
    for name in ANAT:
        _write(base / "anat" / f"{prefix}{name}")
    for bold in sorted(data.glob(f"{label}/**/func/*_bold.nii.gz")):
        stem = bold.name.removesuffix("_bold.nii.gz")
        parts = dict(part.split("-", 1) for part in stem.split("_"))
        passes = all(parts.get(key) in values for key, values in filters.items())
        if not passes or (session and parts.get("ses") != session):
            continue
        folder = out / bold.parent.relative_to(data)
        for name in BOLD:
            if not (mode == "missing" and name == "desc-confounds_timeseries.tsv"):
                _write(folder / f"{stem}_{name}")
        _write(out / label / "figures" / f"{stem}_desc-carpetplot_bold.svg")
    _write(out / label / "figures" / f"{label}_desc-about_T1w.html")
    log = (base if session else out / label) / "log" / RUN
    _write(log / "fmriprep.toml")
    _write(out / "logs" / "CITATION.md")
    _write(out / ".bidsignore")
    version = "24.0.0" if mode == "other_version" else VERSION
    about = {"Name": "fMRIPrep", "GeneratedBy": [{"Name": "fMRIPrep", "Version": version}]}
    (out / "dataset_description.json").write_text(json.dumps(about))
    section = CLEAN
    if mode in ERRORS:
        traceback = TRACEBACK.format(error=ERRORS[mode])
        section = FAILED.format(count=1, node=NODE, traceback=traceback)
        if mode != "html_only":
            text = f"Node: {NODE}\nWorking directory: /work/node\n\nNode inputs:\n\n{traceback}"
            _write(log / "crash-20260101-120000-nobody-mcflirt-0.txt", text)
    if mode == "session_crash":  # the report looks in the wrong folder
        section = CLEAN
    if mode != "no_report":
        (out / f"{label}.html").write_text(report(section))
    return 1 if mode in ("crash", "disk_full", "session_crash") else 0


def _filters(inside: list[str], mounts: dict[str, tuple[Path, str]]) -> dict:
    if "--bids-filter-file" not in inside:
        return {}
    path = inside[inside.index("--bids-filter-file") + 1]
    place = next(target for target in mounts if f"{path}/".startswith(f"{target}/"))
    source = mounts[place][0] / path.removeprefix(place).lstrip("/")
    content = json.loads(source.read_text())
    keys = {"session": "ses", "direction": "dir", "acquisition": "acq"}
    return {keys.get(name, name): values for name, values in content["bold"].items()}


def _mounts(arguments: list[str]) -> dict[str, tuple[Path, str]]:
    """Target -> source and mode, of Apptainer's --bind and Docker's --volume."""
    found = {}
    for flag, value in itertools.pairwise(arguments):
        if flag in ("--bind", "--volume", "-v"):
            source, target, *mode = value.split(":")
            found[target] = (Path(source), mode[0] if mode else "rw")
    if "/scratch" in found:  # the wrapper's names
        found["/work"] = found["/scratch"]
    return found


def _write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
